import asyncio
import sqlite3
from contextlib import closing

import pytest
from asyncmy.errors import OperationalError
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database
from chassis.errors import DatabaseUnavailable, SchemaOutdated
from chassis.telemetry.spans import commit, failure_of
from tests.chassis.sample import Counter, Settings, create_tables
from tests.observed import Sample


def _statements(operation: str, table: str, error_type: str = "") -> Sample:
    labels = {"db_operation_name": operation, "db_collection_name": table, "error_type": error_type}
    return Sample("db_client_operation_duration_seconds_count", **labels)


async def test_statements_are_counted_by_operation_and_table_and_so_is_the_commit(database: Database) -> None:
    await create_tables(database, c1=0)
    selects, updates = _statements("SELECT", "counters"), _statements("UPDATE", "counters")
    commits = _statements("COMMIT", "none")

    async def work(session: AsyncSession) -> None:
        await session.execute(update(Counter).values(value=1))
        await session.execute(select(Counter))

    await database.transact(work)

    assert (selects.moved, updates.moved, commits.moved) == (1, 1, 1)


async def test_a_statement_that_fails_is_counted_by_its_error(database: Database, backend: str) -> None:
    error = "OperationalError" if backend == "sqlite" else "ProgrammingError"
    failed = _statements("SELECT", "no_such_table", error)

    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1 FROM no_such_table"))

    with pytest.raises(SchemaOutdated):
        await database.transact(work)

    assert failed.moved == 1


async def test_a_connection_that_cannot_be_opened_is_counted_by_its_error(settings: Settings) -> None:
    failed = _statements("CONNECT", "none", "OperationalError")
    database = Database(settings.model_copy(update={"database_url": "mysql://root@127.0.0.1:9/none"}))

    with pytest.raises(DatabaseUnavailable):
        await database.check()

    assert failed.moved == 1


async def test_a_commit_that_is_given_up_is_counted_as_failed(database: Database) -> None:
    given_up = _statements("COMMIT", "none", "CancelledError")

    async def wait() -> None:
        with commit(database.writers.sync_engine):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait(), 0.01)

    assert given_up.moved == 1


def test_an_error_of_a_driver_is_named_without_its_words() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.Error) as of_sqlite:
        connection.execute("SELECT 1 FROM ops_at_acme")
    of_mysql = OperationalError(2013, "Lost connection while sending 'ops@acme.com'")

    assert failure_of(of_sqlite.value) == {"error.type": "OperationalError", "db.response.status_code": "1"}
    assert failure_of(of_mysql) == {"error.type": "OperationalError", "db.response.status_code": "2013"}
    assert failure_of(TimeoutError("of ops@acme.com")) == {"error.type": "TimeoutError"}


async def test_statements_that_take_locks_are_counted_apart(database: Database, backend: str) -> None:
    await create_tables(database, c1=0)
    locking = Sample("b2b_lock_wait_seconds_count", db_collection_name="none")  # SQLite's BEGIN IMMEDIATE
    if backend == "mariadb":
        locking = Sample("b2b_lock_wait_seconds_count", db_collection_name="counters")

    async def work(session: AsyncSession) -> None:
        await session.execute(select(Counter).with_for_update())
        await session.execute(select(Counter))

    await database.transact(work)
    async with database.read() as session:
        await session.execute(select(Counter))

    assert locking.moved == 1
