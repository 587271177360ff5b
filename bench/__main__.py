"""`python -m bench`; see the package for what is measured."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.engine import URL

from bench import report
from bench.load import Failed
from bench.recorder import Unreplayable
from bench.run import Plan, Results, Row, run
from bench.shop import WrongResult
from chassis.settings import parse_database_url
from dev.calls import UnexpectedReply
from dev.debian import ProgramMissing
from dev.mariadb import ServerFailed, private_server
from dev.stack import ServiceFailed

CLIENTS = (1, 8, 32)
QUICK_SECONDS = 0.1
WITHOUT_TERMINAL = 160
"""Columns where there is no terminal to ask for its width."""
EXPECTED = (
    ProgramMissing, ServerFailed, ServiceFailed, UnexpectedReply, Failed, Unreplayable, WrongResult
)  # fmt: skip

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(
    *,
    seconds: Annotated[
        float, typer.Option(envvar="BENCH_SECONDS", min=0.1, max=600, help="Seconds to measure each cell.")
    ] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="A moment only: the figures mean nothing.")] = False,
    output: Annotated[Path, typer.Option(help="Where to write everything as JSON.")] = Path("bench.json"),
) -> None:
    """Measure the services on MariaDB beside the same statements sent by the driver alone.

    MariaDB is the server of TEST_DATABASE_URL, in a schema of its own, or else a private one.
    """
    console = Console()
    if not console.is_terminal:
        console.width = WITHOUT_TERMINAL
    # SIGTERM ends it as Ctrl-C does: services, server and schema go first.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        results = _measured(Plan(QUICK_SECONDS if quick else seconds, CLIENTS), console)
    except EXPECTED as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    report.write(output, results)
    report.show(console, results)
    raise typer.Exit(1 if any(row.errors for row in results.rows) else 0)


def _measured(plan: Plan, console: Console) -> Results:
    cells = len(list(plan.cells()))
    with (
        TemporaryDirectory(prefix="b2b-bench-") as folder,
        server_for(Path(folder, "mariadb")) as server,
        Progress(console=console, disable=not console.is_terminal) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # the loop of the services
    ):
        task = progress.add_task("measuring", total=cells)

        def show(row: Row) -> None:
            progress.advance(task)
            console.print(report.line(row), highlight=False)

        return runner.run(run(server, Path(folder), plan, show))


@contextmanager
def server_for(folder: Path) -> Iterator[URL]:
    """The server of TEST_DATABASE_URL, or a private one in this folder."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield parse_database_url(given)
        return
    with private_server(folder) as server:
        yield parse_database_url(server.url(""))


if __name__ == "__main__":
    cli()
