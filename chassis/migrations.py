"""Alembic, without its command line and ini file: one history a service, in `<service>/migrations`.

The version table carries the service's name, so that the services may share a schema. A lock lets
replicas that start together migrate once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from time import monotonic

import sqlalchemy as sa
import structlog
from alembic import command, context, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from chassis import dialects
from chassis.settings import Settings

WAIT_SECONDS = 60
log = structlog.get_logger(__name__)


class MigrationFailed(Exception):  # noqa: N818 - an outcome, in one line
    """Why the schema could not be brought up to date."""


async def current(settings: Settings) -> str | None:
    """The revision of the database; None before the first migration.

    Raises:
        MigrationFailed: the database did not answer in time.

    """
    async with _connection(settings) as connection:
        return await connection.run_sync(_revision, settings.service)


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
    async with _connection(settings) as connection:
        try:
            async with dialects.migration_lock(connection, f"{settings.service}_migration", WAIT_SECONDS):
                revision = await connection.run_sync(_upgrade, settings.service)
                await connection.commit()
        except (DBAPIError, TimeoutError) as error:
            raise MigrationFailed(str(error).partition("\n")[0]) from error
    return revision


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
async def _connection(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection of its own, once the database answers."""
    _, engine = dialects.create_engines(
        settings.sqlalchemy_url, pool_size=1, pool_timeout=5, lock_timeout=WAIT_SECONDS
    )
    try:
        connection = await _connected(engine)
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def _connected(engine: AsyncEngine) -> AsyncConnection:
    deadline = monotonic() + WAIT_SECONDS
    while True:
        try:
            return await engine.connect()
        except DBAPIError as error:
            reason = str(error.orig)
            if not dialects.is_unreachable(error) or monotonic() > deadline:
                raise MigrationFailed(f"no connection to {engine.url!r}: {reason}") from error
        log.info("waiting for the database", reason=reason)
        await asyncio.sleep(1)
