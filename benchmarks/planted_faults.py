"""Which planted faults `edgekd layers` names: python benchmarks/planted_faults.py RUN/engine/ID ... [--seeds 3].

Each engine is one of ONNX Runtime in a finished run of any task, int8 or mixed. Each case plants one fault in a random place. A case
is *named* if the first layer to blame is the broken one, or a reader of the broken tensor, and the comparison is the expected one.
Kinds of faults: an activation's range too small by a factor of 16, a wrong scale of a weight, two swapped channels, a Resize of
another coordinate mode. The last three are planted in the engine's file, and in a file that stands for the engine on its board.
Another fault replaces one that changes the outputs by less than bf16 arithmetic (40 dB), for example two channels that are always 0.
`gone when tapped`: the engine has a fault that the tapped engine does not have; only the comparison is expected.

With `--saturation`, 8-bit weights run on this CPU and with oneDNN limited to AVX2, whose sums saturate (`planted_saturation.py`).
Only their comparison is expected. Run it from the repository's folder, with it on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from edgekd.layers.costs import Costs, batches_of, causes_of, costs_alone, groups_of
from edgekd.layers.measure import FLOAT_SHARE, HERE, Place, Subject
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS, LayerErrors
from edgekd.layers.work import compare, engine_in_run, subject_of, training_images
from edgekd.quantize.noise import to_db
from edgekd.quantize.read_back import read_back
from tests.layer_faults import ENGINE_FAULTS, Fused, place_of, saturated

DRAWS = 20
EFFECT_DB = to_db(FLOAT_SHARE)
LINE = "{:<26} {:>4}  {:<13} {:<34} {:<13} {:<34} {:>6} {}"


@dataclass(frozen=True)
class Case:
    """A planted fault, and the layer and comparison that were blamed first.

    planted: layers with a broken operator, or that read a broken tensor; empty where no layer is expected.
    effect_db: signal-to-noise ratio of the faulty outputs against the sound ones.
    draw: number of faults without an effect that were drawn before.
    """

    engine: str
    fault: str
    seed: int
    expected: str
    planted: list[str]
    effect_db: float
    draw: int
    comparison: str
    layer: str
    sentence: str

    @property
    def is_named(self) -> bool:
        """Whether layer and comparison are the right ones."""
        return self.comparison == self.expected and (not self.planted or self.layer in self.planted)


class Student:
    """A sound engine. A fault of the engine stands before every loss, so the costs of quantization decide nothing there."""

    def __init__(self, subject: Subject, quantized: Path, model: Path, images: list[np.ndarray], folder: Path) -> None:
        self._subject, self._quantized, self._model = subject, quantized, model
        self._images, self._folder = images, folder

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(self._subject, self._images)

    def cases(self, engine: str, seed: int, only: str) -> Iterator[Case]:
        """Yield the cases of one seed; `only`: of the kinds whose name has this text."""
        spec, here = self._subject.spec, place_of(self._quantized, self._subject.spec)

        def fused(path: Path) -> LayerErrors:
            return self._errors({HERE: Place(place_of(path, spec).engine, Fused(self._quantized))})

        kinds: list[tuple[str, str, Callable[..., set[str]], Callable[[Path], LayerErrors]]] = [
            ("range too small", QUANTIZATION, saturated, self._with_other_graph)
        ]
        for name, fault in ENGINE_FAULTS.items():
            kinds.append((f"{name}, engine", RUNTIME, fault, lambda path: self._errors({HERE: place_of(path, spec)})))
            on_board = lambda path: self._errors({HERE: here, "pi": place_of(path, spec)})  # noqa: E731
            kinds.append((f"{name}, board", BOARD, fault, on_board))
        kinds.append(("gone when tapped", TAPS, ENGINE_FAULTS["wrong scale"], fused))
        for number, (name, expected, fault, errors) in enumerate(kinds):
            for draw in range(DRAWS if only in name else 0):
                path, planted = self._broken(fault, np.random.default_rng([seed, number, draw]))
                if not planted:
                    continue
                found = errors(path)
                effect = self._effect(found, expected, planted)
                if effect < EFFECT_DB:
                    first = found.blamed[0] if found.blamed else None
                    got = ("nothing", "") if first is None else (first.comparison, first.layer)
                    shown = [] if expected == TAPS else planted
                    yield Case(engine, name, seed, expected, shown, effect, draw, *got, found.sentence)
                    break

    def _effect(self, found: LayerErrors, comparison: str, planted: list[str]) -> float:
        """Return the ratio of the sound outputs and what the fault changes, in dB."""
        if comparison != QUANTIZATION:
            return found.answer[comparison] or 0.0
        return min(one.alone for one in found.layers if one.name in planted and one.alone is not None)

    def _errors(self, places: Mapping[str, Place]) -> LayerErrors:
        return compare("planted", self._subject, Costs(), places, self._images)

    def _with_other_graph(self, quantized: Path) -> LayerErrors:
        """Return the errors of another Q/DQ file; only layers that read other scales are measured again."""
        back = read_back(quantized, self._model)
        subject = replace(self._subject, graph=back.graph, placement=back.placement, scales=back.scales)
        before = self._subject.scales or {}
        changed = {name for name, scale in back.scales.items() if before[name].scale.tolist() != scale.scale.tolist()}
        nodes = {one.name for one in back.placement.nodes if changed & {*one.activations, one.weight}}
        groups = {layer: group for layer, group in groups_of(subject).items() if nodes & group}
        batches = batches_of(subject, self._images)
        causes, outside = causes_of(subject, batches)
        found = {**self._costs.alone, **costs_alone(subject, batches, groups)}
        costs = Costs(found, self._costs.accumulated, causes, outside)
        return compare("planted", subject, costs, {HERE: place_of(quantized, subject.spec)}, self._images)

    def _broken(self, fault: Callable[..., set[str]], rng: np.random.Generator) -> tuple[Path, list[str]]:
        """Return a file with a fault, and the layers of the broken operators."""
        net = onnx.load(self._quantized)
        nodes = fault(net, rng)
        path = self._folder / "broken.onnx"
        onnx.save(net, path)
        return path, [layer.name for layer in self._subject.layered.layers if nodes & {*layer.nodes}]


def of_engine(engine: Path, images: int, seeds: range, only: str) -> Iterator[Case]:
    """Yield the cases of an engine, `RUN/engine/ID`."""
    with engine_in_run(engine) as found, TemporaryDirectory() as folder:
        network = found.network
        assert network.quantized is not None
        quantized = network.quantized.file(network.quantized.details["model"])
        given = training_images(found.recipe, images)
        student = Student(subject_of(network, []), quantized, network.model, given, Path(folder))
        for seed in seeds:
            yield from student.cases(str(engine), seed, only)


def of_eight_bits(engine: Path, images: int) -> Iterator[Case]:
    """8-bit weights on a CPU without VNNI: the engine saturates, its graph does not. oneDNN is limited to AVX2."""
    for limit, board, expected in (("", "", QUANTIZATION), ("AVX2", "", RUNTIME), ("AVX2", "board", BOARD)):
        environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": limit} if limit and not board else {})}
        script = str(Path(__file__).with_name("planted_saturation.py"))
        command = [sys.executable, script, str(engine.parent.parent), str(images), *([board] if board else [])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found = LayerErrors.from_dict(json.loads(done.stdout.splitlines()[-1]))
        first = found.blamed[0] if found.blamed else None
        got = ("nothing", "") if first is None else (first.comparison, first.layer)
        yield Case(str(engine), f"8-bit weights {limit} {board}", 0, expected, [], 0.0, 0, *got, found.sentence)


def main() -> None:
    """Print the cases, and how many are named by engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+", metavar="RUN/engine/ID")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--only", default="", help="kinds of faults whose name has this text")
    parser.add_argument("--saturation", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases: list[Case] = []
    print(LINE.format("fault", "seed", "expected", "planted in", "comparison", "layer", "effect", "named"))
    for engine in given.engines:
        print(engine)
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        found = [of_engine(engine, given.images, seeds, given.only)]
        found += [of_eight_bits(engine, given.images)] if given.saturation else []
        for case in (case for some in found for case in some):
            print(_row(case), flush=True)
            cases.append(case)
            if given.json:
                given.json.write_text(json.dumps([asdict(one) for one in cases], indent=1))
    print("\n| engine | cases | named | right comparison | by kind of fault |\n|---|---:|---:|---:|---|")
    for engine in map(str, given.engines):
        some = [one for one in cases if one.engine == engine]
        print(f"| {engine} | {len(some)} | {sum(one.is_named for one in some)} "
              f"| {sum(one.comparison == one.expected for one in some)} | {_by_kind(some)} |")  # fmt: skip


def _row(case: Case) -> str:
    where, effect = " ".join(case.planted)[:34], f"{case.effect_db:.1f}"
    named = "yes" if case.is_named else f"NO: {case.sentence}"
    return LINE.format(case.fault, case.seed, case.expected, where, case.comparison, case.layer, effect, named)


def _by_kind(cases: list[Case]) -> str:
    every, named = Counter(one.fault for one in cases), Counter(one.fault for one in cases if one.is_named)
    return ", ".join(f"{kind} {named[kind]}/{count}" for kind, count in every.items())


if __name__ == "__main__":
    main()
