"""Draws the packages of edgekd and their layers: python docs/draw_packages.py writes docs/packages.svg.

The layers are those that tests/architecture holds; a test fails when the picture is another.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

# From the top: what a user calls. A package imports only from rows below its own. Kind: portable, light or torch.
ROWS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("cli", "light", "one file per command"),),
    (("api", "light", "what a notebook calls"), ("doctor", "light", "what this machine can do")),
    (("deploy", "light", "brings a bundle to a board"),),
    (
        ("study", "light", "arms and seeds of a recipe, compared"),
        ("tuning", "light", "settings that make engines faster"),
        ("bundle", "light", "an engine and its proof in one file"),
        ("comparison", "light", "runs against runs and limits"),
    ),
    (("pipeline", "light", "runs stages, skips by cache key, keeps failures"),),
    (("planning", "light", "the stages of a recipe"),),
    (
        ("report", "light", "report.json as one model, table, page"),
        ("preflight", "light", "what a target will make of a graph"),
        ("stacks", "light", "files for other software"),
    ),
    (
        ("sensitivity", "light", "layers that lose accuracy in int8, budget search"),
        ("layers", "light", "an engine's error layer by layer"),
    ),
    (
        ("export", "torch", "ONNX, parity"),
        ("quantize", "light", "calibration, schemes/"),
        ("compile", "light", "engine"),
        ("bench", "light", "stores latency"),
        ("evaluate", "light", "scores predictions"),
    ),
    (("distill", "torch", "methods/, teacher, relations, taps, teacher cache"),),
    (("train", "torch", "loop, resume, callbacks, task losses"),),
    (("models", "torch", "families/, blocks, weight files"),),
    (
        ("executors", "light", "where a job runs: local, child, toolchain"),
        ("data", "light", "formats/, splits, checks, loader"),
    ),
    (("core", "light", "recipe, plugins, artifact, stage, workspace, chips"),),
    (("worker", "portable", "reads job.json, writes result.json"),),
    (("worker_tasks", "portable", "compile, infer, measure, probe, version"),),
    (("release", "portable", "checks a bundle, makes it the current release"),),
    (("runner", "portable", "runs a release: frames in, results out"),),
    (("targets", "portable", "a folder per runtime: target.py, support.yaml, toolchain.txt"),),
    (("rewrites", "portable", "the ONNX graph reader, exact rewrites"),),
    (("board", "portable", "contract, pre- and post-processing, bench, job, options"),),
    (("errors", "portable", "every error, with its exit code"),),
)
COLORS = {"portable": "#d7ecd9", "light": "#e3e9f7", "torch": "#f9e2cf"}
LEGEND = {
    "portable": "standard library + numpy, Python 3.8: runs on boards and in vendor virtualenvs",
    "light": "no framework at import",
    "torch": "imports torch",
}
WIDTH, ROW, GAP, MARGIN = 960, 40, 6, 12


def drawing() -> str:
    """Return the picture as SVG."""
    height = MARGIN * 2 + len(ROWS) * (ROW + GAP) + len(LEGEND) * 22 + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        "<title>The packages of edgekd: each imports only from rows below its own</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, row in enumerate(ROWS):
        y, width = MARGIN + place * (ROW + GAP), (WIDTH - 2 * MARGIN - (len(row) - 1) * GAP) / len(row)
        for column, (name, kind, role) in enumerate(row):
            parts += _box(MARGIN + column * (width + GAP), y, width, (name, kind, role), is_narrow=len(row) > 2)
    y = MARGIN + len(ROWS) * (ROW + GAP) + 16
    for kind, text in LEGEND.items():
        parts.append(f'<rect x="{MARGIN}" y="{y - 11}" width="14" height="14" fill="{COLORS[kind]}" stroke="#777"/>')
        parts.append(f'<text x="{MARGIN + 22}" y="{y}" fill="#222">{escape(text)}</text>')
        y += 22
    return "\n".join([*parts, "</svg>", ""])


def _box(x: float, y: float, width: float, package: tuple[str, str, str], is_narrow: bool) -> list[str]:
    name, kind, role = package
    box = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="5" fill="{COLORS[kind]}" stroke="#777"/>'
    label = f'<text x="{x + 10:.1f}" y="{y + (17 if is_narrow else 25)}" font-weight="bold" fill="#111">{name}</text>'
    if is_narrow:
        about = f'<text x="{x + 10:.1f}" y="{y + 33}" font-size="11.5" fill="#333">{escape(role)}</text>'
    else:
        about = f'<text x="{x + 130:.1f}" y="{y + 25}" fill="#333">{escape(role)}</text>'
    return [box, label, about]


if __name__ == "__main__":
    (Path(__file__).parent / "packages.svg").write_text(drawing(), encoding="utf-8")
