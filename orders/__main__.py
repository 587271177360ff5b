"""`python -m orders`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from chassis import settings
from chassis.cli import build_cli
from chassis.database import Database
from chassis.errors import Problem
from orders import commands
from orders.app import DESCRIPTION, create_app
from orders.reconcile import find_discrepancies
from orders.settings import Settings

T = TypeVar("T")
cli = build_cli(Settings, create_app, DESCRIPTION)


@cli.command()
def expire() -> None:
    """Cancel every order whose reservation has expired and release its stock."""
    expired = _with_database(commands.expire_all)
    typer.echo(f"orders: {expired} expired order(s) canceled")


@cli.command()
def reconcile() -> None:
    """Compare stock, reservations and totals with the ledger; exit 1 and list what is off."""
    discrepancies = _with_database(find_discrepancies)
    for discrepancy in discrepancies:
        typer.echo(discrepancy)
    if discrepancies:
        typer.echo(f"orders: {len(discrepancies)} discrepancies", err=True)
        raise typer.Exit(1)
    typer.echo("orders: stock, reservations and totals equal the ledger")


def _with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    loaded = settings.load(Settings)

    async def run() -> T:
        database = Database(loaded)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except Problem as problem:
        typer.echo(f"orders: {problem.detail}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    cli()
