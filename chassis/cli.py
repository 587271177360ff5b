"""The command line that every service has: `serve` and `migrate`."""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Annotated, NoReturn, TypeVar

import typer
from aiohttp import web

from chassis import migrations, process, settings

S = TypeVar("S", bound=settings.Settings)


def build_cli(
    settings_class: type[S], create_app: Callable[[S], web.Application], description: str
) -> typer.Typer:
    """The commands `serve` and `migrate`; a service adds its own."""
    service = settings_class.service
    cli = typer.Typer(
        name=f"python -m {service}",
        help=description,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @cli.callback()
    def begin() -> None:
        # The first process of a container is ended by no signal that it does not handle.
        if threading.current_thread() is threading.main_thread():  # no other may
            signal.signal(signal.SIGTERM, _end)

    @cli.command()
    def serve() -> None:
        """Serve HTTP until SIGTERM. Configured by environment variables, see README.md."""
        loaded = settings.load(settings_class)
        process.serve(loaded, lambda: create_app(loaded))

    @cli.command()
    def migrate(
        *,
        check: Annotated[
            bool, typer.Option("--check", help="Change nothing; exit 1 if migrations are missing.")
        ] = False,
    ) -> None:
        """Bring the database schema up to date. Safe to run from several places at once."""
        loaded = settings.load(settings_class)
        try:
            if not check:
                typer.echo(f"{service}: schema at {asyncio.run(migrations.upgrade(loaded))}")
                return
            found = asyncio.run(migrations.current(loaded))
        except migrations.MigrationFailed as failure:
            typer.echo(f"{service}: {failure}", err=True)
            raise typer.Exit(1) from None
        if not migrations.suffices(found, service):
            wants = f"wants {migrations.head(service)}: run python -m {service} migrate"
            typer.echo(f"{service}: schema at {found or 'nothing'}, {wants}", err=True)
            raise typer.Exit(1)
        typer.echo(f"{service}: schema at {found}, up to date")

    return cli


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
