"use strict";
const root = document.documentElement;
window.addEventListener("error", (event) => { root.dataset.scriptError = event.message; });
root.classList.add("js");
const all = (query, within = document) => [...within.querySelectorAll(query)];

// The layer switch of the first screen rules the page; the one beside the pictures follows it, and the other way round.
const LAYERS = ["prediction", "error", "difference"];
function showLayer(layer) {
  for (const name of ["layer", "again"]) {
    const input = document.getElementById(`${name}-${layer}`);
    if (input) input.checked = true;
  }
}
for (const input of all(".switch input")) input.addEventListener("change", () => showLayer(input.value));

// The network that the others are compared with: its errors are the page's --base, picture by picture.
const numbers = (figure) => new Set((figure.dataset.found || "").split(" ").filter(Boolean));
function markDifferences(stack, own, base) {
  for (const rect of all("rect.truth", stack)) {
    const mine = own.has(rect.dataset.number), theirs = base.has(rect.dataset.number);
    rect.classList.toggle("won", mine && !theirs);
    rect.classList.toggle("lost", !mine && theirs);
  }
}
function compareWith(key) {
  for (const select of all(".base select")) select.value = key;
  for (const group of all(".tiles[data-place], .strip")) {
    const place = group.dataset.place || document.querySelector(".compare").dataset.place;
    const base = tileOf(place, key);
    if (!base) continue;
    group.style.setProperty("--base", base.querySelector(".stack").style.getPropertyValue("--err") || "none");
    for (const figure of all("figure[data-found]", group)) {
      const said = JSON.parse(figure.dataset.differences || "{}");
      figure.querySelector(".difference").textContent = said[key] || "the network that the others are compared with";
      markDifferences(figure.querySelector(".stack"), numbers(figure), numbers(base));
    }
  }
  for (const select of all("[data-side]")) placeSide(select);
}
const tileOf = (place, key) => document.querySelector(`.tiles[data-place="${place}"] figure[data-key="${CSS.escape(key)}"]`);
for (const select of all(".base select")) select.addEventListener("change", () => compareWith(select.value));

// The slider between two networks.
const compare = document.querySelector(".compare");
function placeSide(select) {
  const figure = tileOf(compare.dataset.place, select.value);
  if (!figure) return;
  compare.style.setProperty("--base", figure.parentElement.style.getPropertyValue("--base"));
  const side = compare.querySelector(`.side.${select.dataset.side}`);
  side.replaceChildren(figure.querySelector(".stack").cloneNode(true));
}
if (compare) {
  const range = compare.querySelector("input");
  range.addEventListener("input", () => compare.style.setProperty("--cut", `${range.value}%`));
  for (const select of all("[data-side]")) {
    select.addEventListener("change", () => placeSide(select));
    placeSide(select);
  }
}

// A picture opens large: keys, buttons and swipes walk through networks and pictures.
const dialog = document.querySelector("dialog");
const MOST_ZOOM = 8;
const shown = { place: 0, key: "photo", zoom: 1 };
function show(place, key) {
  const figure = tileOf(place, key);
  if (!figure) return;
  Object.assign(shown, { place: Number(place), key });
  const view = dialog.querySelector(".view"), group = figure.parentElement, stack = figure.querySelector(".stack").cloneNode(true);
  const [width, height] = group.style.getPropertyValue("--ratio").split("/").map(Number);
  view.style.cssText = `--ratio:${width}/${height};--wide:${width / height};--zoom:${shown.zoom};--base:${group.style.getPropertyValue("--base")}`;
  view.replaceChildren(stack);
  dialog.querySelector("p").textContent = figure.querySelector(".stack").getAttribute("aria-label");
}
function walk(step) {
  const keys = all(`.tiles[data-place="${shown.place}"] figure`).map((figure) => figure.dataset.key);
  show(shown.place, keys[(keys.indexOf(shown.key) + step + keys.length) % keys.length]);
}
function turn(step) {
  const count = all(".tiles[data-place]").length;
  show((shown.place + step + count) % count, shown.key);
}
function zoom(factor) {
  shown.zoom = Math.min(MOST_ZOOM, Math.max(1, shown.zoom * factor));
  const view = dialog.querySelector(".view");
  const [x, y] = [(view.scrollLeft + view.clientWidth / 2) / view.scrollWidth, (view.scrollTop + view.clientHeight / 2) / view.scrollHeight];
  view.style.setProperty("--zoom", shown.zoom);
  view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
}
function nextLayer() {
  const now = LAYERS.findIndex((layer) => document.getElementById(`layer-${layer}`).checked);
  showLayer(LAYERS[(now + 1) % LAYERS.length]);
}
if (dialog) {
  const actions = { before: () => walk(-1), after: () => walk(1), smaller: () => zoom(0.5), larger: () => zoom(2), layer: nextLayer };
  const keys = {
    ArrowLeft: actions.before, ArrowRight: actions.after, ArrowUp: () => turn(-1), ArrowDown: () => turn(1),
    "+": actions.larger, "=": actions.larger, "-": actions.smaller,
    1: () => showLayer("prediction"), 2: () => showLayer("error"), 3: () => showLayer("difference"),
  };
  for (const button of all(".zoom")) {
    button.addEventListener("click", () => {
      shown.zoom = 1;
      show(button.dataset.place, button.dataset.key);
      dialog.showModal();
      dialog.querySelector(".view").focus();
    });
  }
  for (const button of all("button[data-do]", dialog)) button.addEventListener("click", actions[button.dataset.do]);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const isPanned = shown.zoom > 1 && event.key.startsWith("Arrow");  // the view scrolls
    if (keys[event.key] && !isPanned && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  let began = null;
  dialog.addEventListener("touchstart", (event) => { began = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
  dialog.addEventListener("touchend", (event) => {
    const ended = event.changedTouches[0];
    if (!began || shown.zoom > 1) return;
    const x = ended.clientX - began.clientX, y = ended.clientY - began.clientY;
    if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) walk(x < 0 ? 1 : -1);
  });
}

// Paper shows what a click would open.
window.addEventListener("beforeprint", () => {
  for (const details of all("details")) details.open = true;
});
root.dataset.ready = "true";
