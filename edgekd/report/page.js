"use strict";
const root = document.documentElement;
window.addEventListener("error", (event) => { root.dataset.scriptError = event.message; });

// Hover and focus text: the title of a mark becomes a styled tip and the mark's accessible name.
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("aria-hidden", "true");
tip.hidden = true;
document.body.append(tip);

function showTip(mark, x, y) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = Math.max(6, y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18) + "px";
}

for (const mark of document.querySelectorAll("svg .mark")) {
  const title = mark.querySelector("title");
  mark.setAttribute("aria-label", title.textContent);
  title.remove();
  mark.addEventListener("pointermove", (event) => showTip(mark, event.clientX, event.clientY));
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  mark.addEventListener("focus", () => {
    const box = mark.getBoundingClientRect();
    showTip(mark, box.left + box.width / 2, box.top + box.height / 2);
  });
  mark.addEventListener("blur", () => { tip.hidden = true; });
}

// A picture opens large, pixels unsmoothed.
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    const large = dialog.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.querySelector("p").textContent = image.alt;
    dialog.showModal();
  });
}
if (dialog) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

// Paper shows what a click would open.
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
root.dataset.ready = "true";
