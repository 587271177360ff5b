"""The command line of a service: `serve`, `migrate`, and `purge` where something is kept for a time."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, NoReturn, TypeVar

import typer
from aiohttp import web

from chassis import failpoints, migrations, process, settings
from chassis.database import Database
from chassis.errors import Problem
from chassis.idempotency import KeyRow, Keys

S = TypeVar("S", bound=settings.Settings)
T = TypeVar("T")
Purge = Callable[[Database, S], Awaitable[int]]
"""Forgets what has been kept for long enough; returns how much that was."""


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
        failpoints.arm(loaded.failpoints)
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


def add_purge(
    cli: typer.Typer, settings_class: type[S], keys: type[KeyRow], also: Mapping[str, Purge[S]] | None = None
) -> None:
    """The command `purge`: idempotency keys, and what else a service keeps for a time, by its name."""

    @cli.command()
    def purge() -> None:
        """Forget what was finished long enough ago. The service does it, too, once an hour."""

        async def work(database: Database, loaded: S) -> str:
            count = await Keys(loaded.service, database, keys).purge(loaded.idempotency_days)
            forgotten = [f"{count} idempotency key(s)"]
            for name, one in (also or {}).items():
                forgotten.append(f"{await one(database, loaded)} {name}")
            return ", ".join(forgotten)

        typer.echo(f"{settings_class.service}: {with_database(settings_class, work)} forgotten")


def with_database(settings_class: type[S], work: Callable[[Database, S], Awaitable[T]]) -> T:
    """Do the work of a command; where the database refuses, end with its reason and exit code 1."""
    loaded = settings.load(settings_class)

    async def run() -> T:
        database = Database(loaded)
        try:
            return await work(database, loaded)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except Problem as problem:
        typer.echo(f"{loaded.service}: {problem.detail}", err=True)
        raise typer.Exit(1) from None
