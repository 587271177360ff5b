"""`python -m orchestrator`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from chassis.cli import add_purge, build_cli, with_database
from chassis.database import Database
from orchestrator import commands, queries
from orchestrator.app import DESCRIPTION, create_app
from orchestrator.job.command import job
from orchestrator.models import IdempotencyKey, Saga, Status
from orchestrator.schemas import FindSagas
from orchestrator.settings import Settings
from orchestrator.smoke.command import smoke
from orchestrator.story.command import trace

cli = build_cli(Settings, create_app, DESCRIPTION)
add_purge(
    cli,
    Settings,
    IdempotencyKey,
    {"saga(s)": lambda database, loaded: commands.purge_sagas(database, loaded.saga_days)},
)
cli.command()(job)
cli.command()(smoke)
cli.command()(trace)


@cli.command()
def sagas(
    status: Annotated[Status | None, typer.Option(help="Only sagas in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
) -> None:
    """List sagas from the database: their state, their next step, what became of the last one."""
    query = FindSagas(status=status, limit=limit)
    found = with_database(Settings, lambda database, _: _find(database, query))
    table = Table(
        "saga", "status", "next step", "last step", "attempts", "created", "correlation id", "attention"
    )
    for saga in found[:limit]:
        last = saga.steps[-1] if saga.steps else None
        table.add_row(
            saga.id,
            saga.status,
            saga.step or "",
            f"{last['step']} {last['outcome']}" if last else "",
            str(saga.attempts),
            saga.created_at.isoformat(timespec="seconds"),
            saga.correlation_id,
            saga.attention or "",
        )
    Console(width=None if Console().is_terminal else 250).print(table if found else "no sagas")


async def _find(database: Database, query: FindSagas) -> Sequence[Saga]:
    async with database.read() as session:
        return await queries.find_sagas(session, query)


if __name__ == "__main__":
    cli()
