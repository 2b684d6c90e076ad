"""A bar with the time left, on stderr where that is a terminal and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]  # called with how many are done, of how many


@contextmanager
def progress_bar(title: str, redraws_itself: bool = True) -> Iterator[Progress]:
    """Show a bar while the block lasts; it moves when the function it gives is called.

    redraws_itself: from a thread, ten times a second, which shows up in the slowest of runs that are timed meanwhile;
        otherwise it is drawn in the calls alone.
    """
    from rich import progress
    from rich.console import Console

    from edgekd.core.ranks import is_first_process

    screen = Console(stderr=True)
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    with progress.Progress(
        *columns,
        progress.TimeRemainingColumn(),
        console=screen,
        auto_refresh=redraws_itself,
        disable=not (screen.is_terminal and is_first_process()),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=not redraws_itself)
