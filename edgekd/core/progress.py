"""A progress bar with the time left, on stderr if it is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]  # called with the number done and the total


@contextmanager
def progress_bar(title: str, redraws_itself: bool = True) -> Iterator[Progress]:
    """Show a bar during the block; the function that it yields moves the bar.

    redraws_itself: redraw from a thread, ten times a second, which disturbs latency measurements meanwhile;
        otherwise redraw only in the calls.
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
