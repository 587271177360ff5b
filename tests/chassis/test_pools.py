import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database
from chassis.errors import PoolExhausted
from tests.chassis.sample import Settings, create_tables
from tests.databases import MakeSettings
from tests.observed import Sample

POOL = "db_client_connection_pool_name"
STATE = "db_client_connection_state"


@pytest.fixture
async def narrow(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """A database to which this process may hold one connection."""
    database = Database(make_settings(Settings, db_pool_size=1, db_pool_timeout=0.2))
    await create_tables(database)
    yield database
    await database.close()


@pytest.fixture
def pool(backend: str) -> str:
    """The name of the pool that commands take their connections from."""
    return "writers" if backend == "sqlite" else "all"


async def test_the_connections_of_a_pool_are_shown_as_they_are_when_asked_for(
    narrow: Database, pool: str
) -> None:
    used = Sample("db_client_connection_count", **{POOL: pool, STATE: "used"})
    idle = Sample("db_client_connection_count", **{POOL: pool, STATE: "idle"})
    largest = Sample("db_client_connection_max", **{POOL: pool})
    seen = []

    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        seen.append((used.value, idle.value, largest.value))

    await narrow.transact(work)

    assert seen == [(1, 0, 1)]
    assert (used.value, idle.value) == (0, 1)


async def test_who_waits_for_a_connection_is_counted_and_who_waited_in_vain(
    narrow: Database, pool: str
) -> None:
    waited = Sample("db_client_connection_wait_time_seconds_count", **{POOL: pool})
    pending = Sample("db_client_connection_pending_requests", **{POOL: pool})
    in_vain = Sample("db_client_connection_timeouts_total", **{POOL: pool})
    held, done = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        held.set()
        await done.wait()

    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))

    holding = asyncio.create_task(narrow.transact(hold))
    await held.wait()
    waiting = asyncio.create_task(narrow.transact(work))
    while pending.value < 1:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)
    with pytest.raises(PoolExhausted):
        await waiting
    done.set()
    await holding

    assert (pending.value, in_vain.moved, waited.moved) == (0, 1, 2)
