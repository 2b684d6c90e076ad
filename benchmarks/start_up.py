"""How fast the command line answers, and that it imports no framework to do so.

    python benchmarks/start_up.py [RUN_FOLDER]

Medians of whole processes, the commands and a bare interpreter in turn; with a run folder also `edgekd report`.
Exit 1 when a command imports torch, onnx, onnxruntime or openvino.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

FRAMEWORKS = ("torch", "onnx", "onnxruntime", "openvino", "lightning", "nncf")
ROUNDS = 7
PROBE = """
import sys
sys.argv = ["edgekd", *{arguments!r}]
from edgekd.cli.main import main
try:
    main()
except SystemExit:
    pass
print(" ".join(name for name in {frameworks!r} if name in sys.modules), file=sys.stderr)
"""


def main() -> int:
    """Print one line per command; return 1 when one imports a framework."""
    commands = {
        "edgekd --help": ["--help"],
        "edgekd recipes list": ["recipes", "list"],
        "edgekd --version": ["--version"],
    }
    if len(sys.argv) > 1:
        commands["edgekd report"] = ["report", sys.argv[1]]
    programs = {"python -c pass": "pass"}
    programs |= {name: PROBE.format(arguments=words, frameworks=FRAMEWORKS) for name, words in commands.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    imported: dict[str, str] = {}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            seconds[name].append(time.perf_counter() - started)
            imported[name] = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    for name, samples in seconds.items():
        found = f"imports {imported[name]}" if imported[name] else "imports no framework"
        print(f"{name:22} median {1000 * statistics.median(samples):6.0f} ms of {ROUNDS} runs; {found}")
    return 1 if any(imported.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
