import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import Database, Lost, after_commit, changed
from chassis.errors import DatabaseContended, DatabaseUnavailable, PoolExhausted, SchemaOutdated
from tests.chassis.sample import Counter, Settings, create_tables
from tests.databases import DatabaseUrl, MakeSettings, execute
from tests.observed import Sample

MakeDatabase = Callable[..., Awaitable[Database]]
only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)


@pytest.fixture
async def make_database(make_settings: MakeSettings) -> MakeDatabase:
    """The database of the sample service under other settings."""

    async def make(**overrides: object) -> Database:
        return Database(make_settings(Settings, **overrides))

    return make


@pytest.fixture
async def database(database: Database) -> Database:
    """The database of the sample service, with two counters at zero."""
    await create_tables(database, c1=0, c2=0)
    return database


async def _value(database: Database, counter_id: int) -> int | None:
    async with database.read() as session:
        return await session.scalar(select(Counter.value).where(Counter.id == counter_id))


async def _add(session: AsyncSession, counter_id: int, by: int = 1) -> int:
    return await changed(
        session, update(Counter).where(Counter.id == counter_id).values(value=Counter.value + by)
    )


# --- what a transaction is ----------------------------------------------------------------------


async def test_a_transaction_is_committed_when_its_work_is_done(database: Database) -> None:
    async def work(session: AsyncSession) -> str:
        await _add(session, 1)
        return "done"

    assert await database.transact(work) == "done"
    assert await _value(database, 1) == 1


async def test_a_transaction_is_undone_when_its_work_fails(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await _add(session, 1)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await database.transact(work)
    assert await _value(database, 1) == 0


async def test_a_bug_in_a_statement_stays_what_it_is(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        session.add(Counter(id=1, value=1))
        await session.flush()

    with pytest.raises(IntegrityError):
        await database.transact(work)


async def test_what_waits_for_the_commit_happens_after_it_and_never_without_it(database: Database) -> None:
    happened: list[str] = []

    async def good(session: AsyncSession) -> None:
        after_commit(session, lambda: happened.append("good"))
        await _add(session, 1)
        assert happened == []

    async def bad(session: AsyncSession) -> None:
        after_commit(session, lambda: happened.append("bad"))
        raise KeyError("a bug")

    await database.transact(good)
    with pytest.raises(KeyError):
        await database.transact(bad)

    assert happened == ["good"]


async def test_changed_counts_the_rows_that_matched_even_if_they_were_so_already(database: Database) -> None:
    async def work(session: AsyncSession) -> tuple[int, int]:
        same = update(Counter).where(Counter.id == 1).values(value=0)
        return await changed(session, same), await changed(session, same.where(Counter.value > 5))

    assert await database.transact(work) == (1, 0)


async def test_a_snapshot_sees_one_moment(database: Database) -> None:
    async with database.snapshot() as session:
        before = await session.scalar(select(Counter.value).where(Counter.id == 1))
        await database.transact(lambda other: _add(other, 1))
        after = await session.scalar(select(Counter.value).where(Counter.id == 1))

    assert (before, after, await _value(database, 1)) == (0, 0, 1)


async def test_concurrent_transactions_lose_no_update(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        counter = await session.get_one(Counter, 1, with_for_update=True)
        counter.value += 1

    await asyncio.gather(*(database.transact(work) for _ in range(50)))

    assert await _value(database, 1) == 50


# --- losing against others ----------------------------------------------------------------------


@only_mariadb
async def test_a_transaction_that_is_the_victim_of_a_deadlock_is_done_again(database: Database) -> None:
    deadlocks = Sample("b2b_transaction_retries_total", error="deadlock")
    both_locked = asyncio.Barrier(2)
    attempts: list[int] = []

    def crossing(first: int, second: int) -> Callable[[AsyncSession], Awaitable[None]]:
        met = False

        async def work(session: AsyncSession) -> None:
            nonlocal met
            attempts.append(first)
            await _add(session, first)
            if not met:
                met = True
                await both_locked.wait()
            await _add(session, second)

        return work

    await asyncio.gather(database.transact(crossing(1, 2)), database.transact(crossing(2, 1)))

    assert (await _value(database, 1), await _value(database, 2)) == (2, 2)
    assert len(attempts) == 3
    assert deadlocks.moved == 1


async def test_a_command_that_lost_is_repaired_and_done_again(database: Database) -> None:
    retries = Sample("b2b_transaction_retries_total", error="repaired")

    async def repair(session: AsyncSession) -> None:
        await _add(session, 2, by=10)

    async def work(session: AsyncSession) -> int:
        await _add(session, 1)
        if await session.scalar(select(Counter.value).where(Counter.id == 2)) != 10:
            raise Lost("repaired", repair)
        return 7

    assert await database.transact(work) == 7
    assert (await _value(database, 1), await _value(database, 2)) == (1, 10)
    assert retries.moved == 1


async def test_a_command_that_loses_on_every_attempt_is_given_up(make_database: MakeDatabase) -> None:
    database = await make_database(db_attempts=3)
    await create_tables(database, c1=0)
    attempts: list[int] = []

    async def work(session: AsyncSession) -> None:
        attempts.append(await _add(session, 1))
        raise Lost("stale")

    with pytest.raises(DatabaseContended, match="stale"):
        await database.transact(work)
    assert len(attempts) == 3
    assert await _value(database, 1) == 0
    await database.close()


async def test_a_lock_that_others_hold_too_long_is_given_up(make_database: MakeDatabase) -> None:
    database, others = await make_database(db_attempts=1, db_lock_timeout=1), await make_database()
    await create_tables(others, c1=0)
    timeouts = Sample("b2b_transaction_retries_total", error="lock_timeout")
    locked, release = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        await _add(session, 1)
        locked.set()
        await release.wait()

    holding = asyncio.create_task(others.transact(hold))
    await locked.wait()
    with pytest.raises(DatabaseContended):
        await database.transact(lambda session: _add(session, 1))
    release.set()
    await holding

    assert await _value(database, 1) == 1
    assert timeouts.moved == 1
    await database.close()
    await others.close()


# --- cancellation -------------------------------------------------------------------------------


async def test_a_caller_that_goes_away_does_not_interrupt_the_transaction(database: Database) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await _add(session, 1)
        begun.set()
        await release.wait()
        await _add(session, 2)

    caller = asyncio.create_task(database.transact(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    release.set()
    await database.transact(lambda session: _add(session, 1, by=100))

    assert (await _value(database, 1), await _value(database, 2)) == (101, 1)


async def test_a_database_that_closes_waits_for_its_transactions(make_database: MakeDatabase) -> None:
    database, later = await make_database(), await make_database()
    await create_tables(database, c1=0)
    begun = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await _add(session, 1)
        begun.set()
        await asyncio.sleep(0.05)

    caller = asyncio.create_task(database.transact(work))
    await begun.wait()
    caller.cancel()
    await database.close()

    assert await _value(later, 1) == 1
    await later.close()


async def test_a_database_that_closes_does_not_wait_for_who_begins_again_and_again(
    make_database: MakeDatabase,
) -> None:
    database = await make_database(db_attempts=50, db_lock_timeout=1, db_timeout=1.1)

    async def lose(_session: AsyncSession) -> None:
        raise Lost("on every attempt")

    losing = asyncio.create_task(database.transact(lose))
    await asyncio.sleep(0)
    await database.close()

    with pytest.raises(asyncio.CancelledError):
        await losing


# --- what cannot be used ------------------------------------------------------------------------


async def test_a_pool_without_a_free_connection_is_exhausted(make_database: MakeDatabase) -> None:
    database = await make_database(db_pool_size=1, db_pool_timeout=0.05)

    async with database.read() as holding:
        await holding.execute(text("SELECT 1"))
        with pytest.raises(PoolExhausted):
            await database.check()

    await database.check()
    await database.close()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("mysql://root@127.0.0.1:1/nothing", id="refuses"),
        pytest.param("mysql://root@nowhere.invalid/nothing", id="has no address"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_unavailable(url: str) -> None:
    database = Database(Settings(database_url=url, auth="off", service_token="own"))

    with pytest.raises(DatabaseUnavailable):
        await database.check()
    with pytest.raises(DatabaseUnavailable):
        await database.transact(lambda session: session.execute(text("SELECT 1")))
    await database.close()


@only_mariadb
@pytest.mark.parametrize("wrong", ["user", "schema"])
async def test_a_database_that_lets_us_not_in_is_unavailable(make_settings: MakeSettings, wrong: str) -> None:
    url = make_settings(Settings).sqlalchemy_url
    other = url.set(username="stranger") if wrong == "user" else url.set(database="no_such_schema")
    database = Database(
        Settings(database_url=other.render_as_string(hide_password=False), auth="off", service_token="own")
    )

    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await database.close()


@only_mariadb
async def test_a_transaction_that_stands_still_gives_its_locks_back(database: Database) -> None:
    engine = dialects.create_engine(database.url, "all", lock_timeout=1, idle_timeout=1)
    added = update(Counter).where(Counter.id == 1).values(value=Counter.value + 100)

    try:
        async with engine.connect() as standing_still:
            await standing_still.execute(added)
            await database.transact(lambda session: _add(session, 1))
            with pytest.raises(DBAPIError):
                await standing_still.execute(added)
    finally:
        await engine.dispose()

    assert await _value(database, 1) == 1


@only_mariadb
async def test_a_connection_that_breaks_in_a_transaction_undoes_it(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await _add(session, 1)
        own = await session.scalar(text("SELECT CONNECTION_ID()"))
        async with database.read() as other:
            await other.execute(text(f"KILL CONNECTION {own}"))
        await _add(session, 1)

    with pytest.raises(DatabaseUnavailable):
        await database.transact(work)

    assert await _value(database, 1) == 0


@only_mariadb
async def test_a_connection_that_broke_while_it_was_idle_is_replaced(
    database: Database, database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.mysql.IDLE_SECONDS", 60)  # it is not asked because it was idle
    async with database.read() as session:
        idle = await session.scalar(text("SELECT CONNECTION_ID()"))

    execute(database_url(Settings), f"KILL CONNECTION {idle}")
    await database.transact(lambda session: _add(session, 1))

    assert await _value(database, 1) == 1


@only_mariadb
@pytest.mark.parametrize(("idle_seconds", "pings"), [(60, 0), (0, 1)])
async def test_only_a_connection_that_was_idle_is_asked_whether_it_lives(
    database: Database, monkeypatch: pytest.MonkeyPatch, idle_seconds: float, pings: int
) -> None:
    async def asked() -> int:
        async with database.read() as session:
            row = await session.execute(text("SHOW SESSION STATUS LIKE 'Com_admin_commands'"))
            return int(row.one().Value)

    monkeypatch.setattr("chassis.mysql.IDLE_SECONDS", idle_seconds)
    before = await asked()

    assert await asked() == before + pings


async def test_a_table_that_is_missing_is_a_schema_that_is_outdated(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(SchemaOutdated):
        await database.transact(work)


async def test_the_text_of_an_error_has_no_parameters(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT * FROM counters WHERE id = :id AND missing = 1"), {"id": 424_242})

    with pytest.raises(SchemaOutdated) as refused:
        await database.transact(work)

    assert "counters" in str(refused.value.__cause__)
    assert "424242" not in str(refused.value.__cause__)
