"""The help of the command line: commands in groups, and an example for each command."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

# Title -> command -> example. A command that is missing here fails a test.
GROUPS: dict[str, dict[str, str]] = {
    "Begin": {
        "doctor": "edgekd doctor",
        "recipes": "edgekd recipes list",
        "recipes list": "edgekd recipes list",
        "recipes show": "edgekd recipes show quickstart",
        "recipes copy": "edgekd recipes copy quickstart own.yaml",
        "data": "edgekd data check own.yaml",
        "data check": "edgekd data check own.yaml --sheet sheets",
        "check": "edgekd check own.yaml",
    },
    "Run": {
        "run": "edgekd run quickstart --out runs/quickstart",
        "train": "edgekd train own.yaml --out runs/own",
        "distill": "edgekd distill own.yaml --plan",
        "export": "edgekd export own.yaml --out runs/own",
        "quantize": "edgekd quantize own.yaml --out runs/own",
        "compile": "edgekd compile own.yaml --out runs/own",
        "bench": "edgekd bench own.yaml --out runs/own --board pi",
        "evaluate": "edgekd evaluate own.yaml --out runs/own",
    },
    "Decide": {
        "report": "edgekd report runs/quickstart",
        "compare": "edgekd compare runs/quickstart runs/other --out compare.html",
        "gate": "edgekd gate runs/quickstart --limits limits.yaml --junit gate.xml",
        "study": "edgekd study study/scenes --out runs/scenes-study",
        "tune": "edgekd tune runs/quickstart",
        "layers": "edgekd layers runs/quickstart/engine/openvino-int8",
    },
    "Use": {
        "predict": "edgekd predict runs/quickstart/engine/openvino-int8 docs/street.png",
        "bundle": "edgekd bundle runs/quickstart/engine/openvino-int8 --sign ~/.ssh/id_ed25519",
        "deploy": "edgekd deploy openvino-int8.tar --board pi --name lane",
        "stack": "edgekd stack runs/quickstart/engine/openvino-int8 --for model_api --out stack",
    },
    "Machines": {
        "board": "edgekd board add pi pi@raspberrypi.local",
        "board add": "edgekd board add pi pi@raspberrypi.local",
        "board list": "edgekd board list",
        "board doctor": "edgekd board doctor pi",
        "board remove": "edgekd board remove pi",
        "board cancel": "edgekd board cancel pi",
        "toolchain": "edgekd toolchain install rknn",
        "toolchain install": "edgekd toolchain install rknn",
        "toolchain list": "edgekd toolchain list",
        "toolchain remove": "edgekd toolchain remove rknn",
        "toolchain doctor": "edgekd toolchain doctor rknn",
    },
}


class Commands(TyperGroup):
    """The commands of `edgekd`, whose help shows them in groups and each whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        for title, examples in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in examples if " " not in name]
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(1000)) for name, one in found if one is not None])


def add_examples(command: Any, path: str = "") -> None:
    """Put the example of each command at the end of its help."""
    examples = {name: example for group in GROUPS.values() for name, example in group.items()}
    for name, one in command.commands.items():
        full = f"{path} {name}".strip()
        if full in examples:
            one.epilog = f"Example: {examples[full]}"
        if hasattr(one, "commands"):
            add_examples(one, full)
