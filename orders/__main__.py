"""`python -m orders`."""

import typer

from chassis.cli import add_purge, build_cli, with_database
from orders import commands
from orders.app import DESCRIPTION, create_app
from orders.models import IdempotencyKey
from orders.reconcile import find_discrepancies
from orders.settings import Settings

cli = build_cli(Settings, create_app, DESCRIPTION)
add_purge(cli, Settings, IdempotencyKey)


@cli.command()
def expire() -> None:
    """Cancel every order whose reservation has expired and release its stock."""
    expired = with_database(Settings, lambda database, _: commands.expire_all(database))
    typer.echo(f"orders: {expired} expired order(s) canceled")


@cli.command()
def reconcile() -> None:
    """Compare stock, reservations and totals with the ledger; exit 1 and list what is off."""
    discrepancies = with_database(Settings, lambda database, _: find_discrepancies(database))
    for discrepancy in discrepancies:
        typer.echo(discrepancy)
    if discrepancies:
        typer.echo(f"orders: {len(discrepancies)} discrepancies", err=True)
        raise typer.Exit(1)
    typer.echo("orders: stock, reservations and totals equal the ledger")


if __name__ == "__main__":
    cli()
