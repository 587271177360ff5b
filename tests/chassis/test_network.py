"""What the database layer makes of a network that resets, cuts, swallows and is silent."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import mysql
from chassis.database import Database, changed
from chassis.errors import DatabaseUnavailable
from tests.chassis.sample import Counter, Settings, create_tables
from tests.client import HOST
from tests.databases import MakeSettings
from tests.faults.proxy import NONE, Faults, Proxy, proxy, to

pytestmark = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
IMPATIENT = {"db_lock_timeout": 1, "db_timeout": 1.5}


@pytest.fixture
async def others(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """Another replica, whose way to the database is sound."""
    database = Database(make_settings(Settings))
    await create_tables(database, c1=0)
    yield database
    await database.close()


@pytest.fixture
async def link(make_settings: MakeSettings) -> AsyncIterator[Proxy]:
    """The way of the replica under test."""
    port = make_settings(Settings).sqlalchemy_url.port
    assert port is not None
    async with proxy("database", to(port), seed=1) as running:
        yield running


@pytest.fixture
async def database(make_settings: MakeSettings, others: Database, link: Proxy) -> AsyncIterator[Database]:
    """The replica under test."""
    database = _through(link.port, make_settings)
    yield database
    link.faults = NONE
    await database.close()
    assert others  # its tables


def _through(port: int, make_settings: MakeSettings, **overrides: float) -> Database:
    """A replica that reaches the database by this port."""
    url = make_settings(Settings).sqlalchemy_url.set(host=HOST, port=port)
    through = {"database_url": url.render_as_string(hide_password=False), **IMPATIENT, **overrides}
    return Database(make_settings(Settings, **through))


async def _add(session: AsyncSession) -> int:
    return await changed(session, update(Counter).where(Counter.id == 1).values(value=Counter.value + 1))


async def _value(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(Counter.value).where(Counter.id == 1)) or 0


async def test_a_database_that_falls_silent_is_unavailable_until_it_speaks_again(
    database: Database, link: Proxy
) -> None:
    await asyncio.gather(*(database.transact(_add) for _ in range(5)))

    link.faults = Faults(black_hole=True)
    silent = [database.transact(_add), database.check(), _value(database)]
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*silent, return_exceptions=True)
    link.faults = NONE

    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    await asyncio.gather(*(database.transact(_add) for _ in range(15)))
    assert await _value(database) in (20, 21)


async def test_a_transaction_that_the_network_parted_from_us_keeps_its_locks_no_longer_than_we_wait(
    database: Database, others: Database, link: Proxy
) -> None:
    async def work(session: AsyncSession) -> None:
        await _add(session)
        link.faults = Faults(black_hole=True)
        await _add(session)

    async with asyncio.timeout(30):
        with pytest.raises(DatabaseUnavailable):
            await database.transact(work)

    await others.transact(_add)
    assert await _value(others) == 1


async def test_connections_that_break_at_any_byte_make_a_database_unavailable_and_nothing_else(
    make_settings: MakeSettings, others: Database, link: Proxy
) -> None:
    database = _through(link.port, make_settings, db_timeout=10)
    outcomes: list[int | BaseException] = []

    link.faults = Faults(reset=0.04, cut=0.04)
    for _ in range(20):
        at_once = (database.transact(_add) for _ in range(10))
        outcomes += await asyncio.gather(*at_once, return_exceptions=True)
    link.faults = NONE

    assert {type(outcome) for outcome in outcomes} == {int, DatabaseUnavailable}
    assert outcomes.count(1) <= await _value(others) <= len(outcomes)
    assert await database.transact(_add) == 1
    await database.close()


async def test_the_first_connection_of_a_service_may_break_like_any_other(
    make_settings: MakeSettings, link: Proxy
) -> None:
    link.faults = Faults(reset=0.1, cut=0.1)
    outcomes = []

    for _ in range(30):
        database = _through(link.port, make_settings)
        outcomes.append(await asyncio.gather(database.check(), return_exceptions=True))
        await database.close()

    assert {type(outcome) for [outcome] in outcomes} <= {type(None), DatabaseUnavailable}
    assert link.struck > 10


async def test_a_connection_that_is_reset_at_once_is_no_connection(make_settings: MakeSettings) -> None:
    with socket.create_server((HOST, 0), backlog=100) as listener:
        resetting = threading.Thread(target=_reset_all, args=(listener,))
        resetting.start()  # beside our event loop: a reset has to come between two of its turns
        database = _through(listener.getsockname()[1], make_settings, db_timeout=10)

        for _ in range(40):
            at_once = (database.check() for _ in range(10))
            outcomes = await asyncio.gather(*at_once, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}

        await database.close()
        listener.shutdown(socket.SHUT_RDWR)
        resetting.join()


def _reset_all(listener: socket.socket) -> None:
    with suppress(OSError):  # the listener is shut down
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


async def test_a_server_that_does_not_greet_is_not_waited_for(
    database: Database, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CONNECT_SECONDS", 0.1)
    link.faults = Faults(black_hole=True)

    async with asyncio.timeout(IMPATIENT["db_timeout"] / 2):
        with pytest.raises(DatabaseUnavailable):
            await database.check()
