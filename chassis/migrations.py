"""Alembic, without its command line and ini file: one history a service, in `<service>/migrations`.

The version table carries the service's name, so that the services may share a schema. A lock lets
replicas that start together migrate once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from alembic import command, context, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from chassis import dialects
from chassis.failpoints import Failpoint
from chassis.settings import Settings

WAIT_SECONDS = 60
"""How long the command `migrate` waits for the database, or for another process that migrates."""
LOCK_SECONDS = 2
"""How long one attempt waits for a lock: requests queue behind it, and a process that is told to end."""
ANSWER_SECONDS = 10
"""How long the database may say nothing before a migration begins; what it takes then, nobody knows."""
MIGRATED = Failpoint("schema.migrated", "All statements of the migrations are done; nothing is committed.")
log = structlog.get_logger(__name__)

T = TypeVar("T")


class MigrationFailed(Exception):  # noqa: N818 - an outcome, in one line
    """Why the schema could not be brought up to date."""


class DatabaseAbsent(MigrationFailed):
    """The database does not answer, or lets us not in: it may come."""


class SchemaBusy(MigrationFailed):
    """Others hold what the migration needs, most likely a replica that migrates: they will end."""


async def current(settings: Settings) -> str | None:
    """The revision of the database; None before the first migration.

    Raises:
        MigrationFailed: the database did not answer in time.

    """

    async def ask(connection: AsyncConnection) -> str | None:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await connection.run_sync(_revision, settings.service)

    return await _patiently(settings, ask)


async def is_outdated(session: AsyncSession, service: str) -> bool:
    """Whether migrations that this code needs are missing."""
    table = sa.table(_version_table(service), sa.column("version_num"))
    return not suffices(await session.scalar(sa.select(table.c.version_num)), service)


def suffices(revision: str | None, service: str) -> bool:
    """Whether this code can work at `revision`: at our head, or at one of a newer release.

    Migrations expand first and contract a release later, so a release that is rolled back finds all
    that it needs.
    """
    return revision == head(service) or (revision is not None and revision not in _known(service))


async def upgrade(settings: Settings) -> str:
    """Bring the schema to `head`, once, however many replicas ask for it; return the revision.

    Raises:
        MigrationFailed: the database did not answer in time, or refused the migration.

    """
    return await _patiently(settings, lambda connection: apply(connection, settings.service))


async def apply(connection: AsyncConnection, service: str) -> str:
    """The same on a connection that is there, and without waiting for long.

    Raises:
        SchemaBusy: another process is at it.
        DBAPIError, TimeoutError: what `connected` makes a reason of.

    """
    async with (
        asyncio.timeout(LOCK_SECONDS + ANSWER_SECONDS) as silence,
        _locked(connection, f"{service}_migration"),
    ):
        silence.reschedule(None)
        revision = await connection.run_sync(_upgrade, service)
        await MIGRATED()
        await connection.commit()
    return revision


@asynccontextmanager
async def _locked(connection: AsyncConnection, name: str) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(dialects.migration_lock(connection, name, LOCK_SECONDS))
        except TimeoutError as error:
            raise SchemaBusy(str(error)) from error
        yield


@cache
def head(service: str) -> str:
    """The newest revision that this code knows."""
    found = ScriptDirectory.from_config(_config(service)).get_current_head()
    if found is None:
        raise MigrationFailed(f"{service} has no migrations")
    return found


@cache
def _known(service: str) -> frozenset[str]:
    return frozenset(
        script.revision for script in ScriptDirectory.from_config(_config(service)).walk_revisions()
    )


def run(metadata: MetaData, service: str) -> None:
    """What the `env.py` of a service does: run the revisions on the connection of `upgrade`."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection, target_metadata=metadata, version_table=_version_table(service), transactional_ddl=True
    )
    context.run_migrations()


def add_column(table: str, column: sa.Column[Any]) -> None:
    """For revisions: add a column, unless an interrupted run has; see `create_index`."""
    if column.name not in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: list[str]) -> None:
    """For revisions: create an index, unless an interrupted run has.

    MariaDB and MySQL commit each statement of a migration by itself, so what was interrupted is done
    again; tables have `if_not_exists` for that, indexes do not on MySQL.
    """
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)


def _config(service: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / service / "migrations"))
    return config


def _version_table(service: str) -> str:
    return f"{service}_alembic_version"


def _upgrade(connection: Connection, service: str) -> str:
    found = _revision(connection, service)
    if found is not None and suffices(found, service):
        return found
    config = _config(service)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return head(service)


def _revision(connection: Connection, service: str) -> str | None:
    options = {"version_table": _version_table(service)}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection of its own, outside of the pool.

    Raises:
        MigrationFailed: there is none, or what was done with it failed; in one line.

    """
    engine = dialects.create_engine(settings.sqlalchemy_url, "migration", lock_timeout=LOCK_SECONDS)
    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await stack.enter_async_context(engine.connect())
            yield connection
    except TimeoutError as error:
        raise DatabaseAbsent(f"no answer from {engine.url!r}") from error
    except DBAPIError as error:
        raise _reason(error, engine.url) from error
    finally:
        await engine.dispose()


def _reason(error: DBAPIError, url: URL) -> MigrationFailed:
    if dialects.is_unreachable(error):
        return DatabaseAbsent(f"no connection to {url!r}: {error.orig}")
    kind = SchemaBusy if dialects.lost_against_others(error) else MigrationFailed
    return kind(str(error).partition("\n")[0])


async def _patiently(settings: Settings, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do the work once the database is there and nobody else migrates it."""
    deadline, said = monotonic() + WAIT_SECONDS, ""
    while True:
        try:
            async with connected(settings) as connection:
                return await work(connection)
        except (DatabaseAbsent, SchemaBusy) as failure:
            if monotonic() > deadline:
                raise
            reason = str(failure)
        if reason != said:
            log.info("waiting for the database", reason=reason)
            said = reason
        await asyncio.sleep(1)
