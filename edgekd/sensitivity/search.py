"""The budget search: which operators to leave in float so that a metric drops by no more than a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgekd.errors import GateError

Floats = frozenset[str]
ENGINE_DIFFERS = "compare the float engine with the ONNX graph"
STUDENT_DIFFERS = "the further training lowered the score; compare this student in float with the deployed one"


@dataclass(frozen=True)
class Found:
    """The operators left in float, in the order of the search, the drop of the metric with them, and the number of trials."""

    floats: tuple[str, ...]
    drop: float
    trials: int


class BudgetSearch:
    """Asks for the drop of sets of operators in float, each set once.

    Args:
        drop: the drop of the metric, a fraction, when these operators are in float and all others in int8.
        max_drop: the budget.
        what: name of the metric, and of the engine that has it, for errors.
        cause: why it can drop with all operators in float, for errors.
    """

    def __init__(
        self, drop: Callable[[Floats], float], max_drop: float, what: str = "the metric", cause: str = ENGINE_DIFFERS
    ) -> None:
        self._drop, self._max_drop, self._what, self._cause = drop, max_drop, what, cause
        self._known: dict[Floats, float] = {}

    def run(self, order: Sequence[str], macs: Mapping[str, int], start: Collection[str] = ()) -> Found:
        """Return operators that hold the budget in float; none of them can go back to int8, unless `start` holds it already.

        Whole beginnings of the order are added to `start`, twice as long each time, then bisected: the drop of a longer beginning
        is nearly always smaller. Then operators go back to int8, that with the most MACs first, where the budget still holds.

        Args:
            order: all operators, the one to leave in float first at the front.
            macs: multiply-adds of each operator.
            start: operators that are in float at first.

        Raises:
            GateError: the budget does not hold with all operators in float.
        """
        rest = [name for name in order if name not in start]
        added = rest[: self._shortest(rest, frozenset(start))]
        floats = frozenset((*start, *added))
        for name in sorted(floats, key=lambda one: (-macs[one], order.index(one))) if added else ():
            if self.holds(floats - {name}):
                floats -= {name}
        return Found(tuple(name for name in order if name in floats), self.drop(floats), len(self._known))

    def holds(self, floats: Floats) -> bool:
        """Whether the budget holds with these operators in float."""
        return self.drop(floats) <= self._max_drop

    def drop(self, floats: Floats) -> float:
        """Return the drop with these operators in float."""
        if floats not in self._known:
            self._known[floats] = self._drop(floats)
        return self._known[floats]

    def _shortest(self, rest: Sequence[str], start: Floats) -> int:
        """Return the length of a beginning of `rest` that holds the budget while the one that is shorter by one does not."""
        short = -1
        for length in _doubled(len(rest)):
            if self.holds(start | {*rest[:length]}):
                break
            short = length
        else:
            worst = self.drop(start | {*rest})
            raise GateError(
                f"quantize.budget: {self._what} drops by {100 * worst:.2f} points with every layer in float, limit "
                f"{100 * self._max_drop:g} (max_drop); quantization is not the cause: {self._cause}"
            )
        while length - short > 1:
            middle = (length + short) // 2
            if self.holds(start | {*rest[:middle]}):
                length = middle
            else:
                short = middle
        return length


def _doubled(most: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... and at last `most`."""
    yield 0
    length = 1
    while length < most:
        yield length
        length *= 2
    if most:
        yield most
