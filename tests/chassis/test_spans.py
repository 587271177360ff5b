import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database
from chassis.errors import SchemaOutdated
from tests.chassis.sample import Counter, create_tables
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
