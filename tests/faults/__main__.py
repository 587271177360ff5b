"""`python -m tests.faults`: breaks the running system in every way we know and checks what must hold.

    python -m tests.faults                   every case once, then again until FAULTS_SECONDS are over
    python -m tests.faults zombie create     those with one of these words in their scenario or name
    FAULTS_SEED=7 python -m tests.faults     the same cases in the same order as before

Real processes and a MariaDB of its own; ends with a table and faults.json, and exits 1 if an
invariant was violated.
"""

import asyncio
import signal
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dev.debian import ProgramMissing
from dev.mariadb import ServerFailed, private_server
from dev.stack import ServiceFailed
from tests.faults import report
from tests.faults.campaign import Campaign, Case, Result
from tests.faults.scenarios.all import CASES

WITHOUT_TERMINAL = 160
"""Columns where there is no terminal to ask for its width."""
EXPECTED = (ProgramMissing, ServerFailed, ServiceFailed)
MAX_SEED = 999_999

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(
    words: Annotated[list[str] | None, typer.Argument(help="Only cases with one of these words.")] = None,
    *,
    seconds: Annotated[
        float, typer.Option(envvar="FAULTS_SECONDS", min=1, max=86_400, help="No run begins after these.")
    ] = 300,
    seed: Annotated[
        int | None, typer.Option(envvar="FAULTS_SEED", min=0, help="Order and numbers; random by default.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="The cases of `make test`, once.")] = False,
    output: Annotated[Path, typer.Option(help="Where to write everything as JSON.")] = Path("faults.json"),
) -> None:
    """Break the running system and check what must hold."""
    console = Console()
    if not console.is_terminal:
        console.width = WITHOUT_TERMINAL
    # SIGTERM ends it as Ctrl-C does: services and server go first.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    cases = [
        case
        for case in CASES
        if (case.short or not short)
        and (not words or any(word in f"{case.scenario} {case.name}" for word in words))
    ]
    if not cases:
        raise typer.BadParameter(f"no case has one of {words}")
    chosen = SystemRandom().randint(0, MAX_SEED) if seed is None else seed
    campaign = Campaign(cases, chosen, seconds, once=short)
    console.print(f"{len(cases)} cases, seed {chosen}, {seconds:g} s")
    try:
        _run(campaign, console)
    except EXPECTED as failure:
        typer.echo(f"faults: {failure}", err=True)
        raise typer.Exit(1) from None
    report.write(output, campaign)
    report.show(console, campaign)
    raise typer.Exit(1 if any(result.violations for result in campaign.results) else 0)


def _run(campaign: Campaign, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        TemporaryDirectory(prefix="b2b-faults-") as folder,
        private_server(Path(folder, "mariadb")) as server,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        task = progress.add_task("starting")

        def show(case: Case, result: Result | None) -> None:
            if result is None:
                progress.update(task, description=f"{case.scenario}: {case.name}")
            else:
                console.print(report.line(result), highlight=False, markup=False)

        runner.run(campaign.run(server, Path(folder), show))


if __name__ == "__main__":
    cli()
