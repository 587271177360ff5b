"""What the operator sees of a job: on standard error, results go elsewhere."""

import sys
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Display(Protocol):
    """Where progress is shown, every `seconds`."""

    seconds: float

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, progress: str, fraction: float | None) -> None:
        """Show how far the job is; `fraction` is None if that cannot be known."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class Lines:
    """A line now and then, for logs."""

    seconds = 5.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, progress: str, fraction: float | None) -> None:
        """Print a line."""
        self.say(progress if fraction is None else f"{fraction:.0%} of the file, {progress}")

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"job: {line}", file=sys.stderr, flush=True)  # noqa: T201 - what the command shows


class Bar:
    """A bar on a terminal."""

    seconds = 0.2

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            console=self._console,
            redirect_stdout=False,  # results are not for the terminal
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, progress: str, fraction: float | None) -> None:
        """Move the bar."""
        total = None if fraction is None else 1
        self._progress.update(self._task, description=progress, completed=fraction or 0, total=total)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, soft_wrap=True)
