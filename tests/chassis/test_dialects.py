import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis import dialects
from chassis.database import Database
from tests.chassis.sample import Settings
from tests.databases import MakeSettings

only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Base(DeclarativeBase):
    pass


class Specimen(Base):
    __tablename__ = "specimens"
    __table_args__ = dialects.TABLE_OPTIONS

    id: Mapped[int] = mapped_column(dialects.BigId, primary_key=True, autoincrement=True)
    at: Mapped[datetime | None] = mapped_column(dialects.UtcDateTime())
    exact: Mapped[str | None] = mapped_column(dialects.exact_text(64), unique=True)
    free: Mapped[str | None] = mapped_column(dialects.free_text(64))
    raw: Mapped[bytes | None] = mapped_column(dialects.exact_bytes(64), unique=True)
    blob: Mapped[bytes | None] = mapped_column(dialects.long_bytes())
    document: Mapped[Any] = mapped_column(dialects.Json(), nullable=True)


@pytest.fixture
async def database(database: Database) -> Database:
    async with database.writers.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return database


async def _stored(database: Database, **values: Any) -> Specimen:
    """Insert a specimen and read it back."""

    async def work(session: AsyncSession) -> Specimen:
        specimen = Specimen(**values)
        session.add(specimen)
        await session.flush()
        await session.refresh(specimen)
        return specimen

    return await database.transact(work)


# --- types --------------------------------------------------------------------------------------


async def test_a_moment_keeps_its_microseconds_and_comes_back_in_utc(database: Database) -> None:
    moment = datetime(2026, 3, 29, 1, 59, 59, 123_456, timezone(timedelta(hours=5, minutes=45)))

    specimen = await _stored(database, at=moment)

    assert specimen.at == moment
    assert specimen.at.tzinfo is UTC
    assert specimen.at.microsecond == 123_456


@pytest.mark.parametrize("other", ["Key-1", "kéy-1", "key-1\u200b"])
async def test_exact_text_takes_no_two_texts_for_the_same(database: Database, other: str) -> None:
    await _stored(database, exact="key-1")

    specimen = await _stored(database, exact=other)

    assert specimen.exact == other


async def test_exact_text_refuses_the_same_text_twice(database: Database) -> None:
    await _stored(database, exact="ключ 🔑")

    with pytest.raises(IntegrityError) as refused:
        await _stored(database, exact="ключ 🔑")

    assert dialects.is_duplicate(refused.value)


async def test_a_missing_value_is_no_duplicate(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO counters (id, value) VALUES (1, NULL)"))

    with pytest.raises(IntegrityError) as refused:
        await database.transact(work)

    assert not dialects.is_duplicate(refused.value)


@pytest.mark.parametrize("other", [b"\x00\xffa ", b"\x00\xffA", b"\x00\xff", b""])
async def test_exact_bytes_are_compared_byte_by_byte(database: Database, other: bytes) -> None:
    await _stored(database, raw=b"\x00\xffa")

    specimen = await _stored(database, raw=other)

    assert specimen.raw == other


async def test_long_bytes_and_documents_are_kept_as_they_are(database: Database) -> None:
    document = {"z": 1, "a": ["é🦄", None, 2**62], "nothing": {}}

    specimen = await _stored(database, blob=bytes(range(256)) * 2000, document=document)

    assert specimen.blob == bytes(range(256)) * 2000
    assert specimen.document == document
    assert list(specimen.document) == ["z", "a", "nothing"]


async def test_ids_are_counted_up_by_the_database(database: Database) -> None:
    first, second = await _stored(database), await _stored(database)

    assert second.id > first.id > 0


# --- expressions --------------------------------------------------------------------------------


async def test_the_clock_of_the_database_is_in_utc_whatever_its_time_zone(database: Database) -> None:
    specimen = await _stored(database, at=dialects.now())

    assert specimen.at is not None
    assert abs(datetime.now(UTC) - specimen.at) < timedelta(minutes=10)


@pytest.mark.parametrize("seconds", [3600, -3600, 0.5, 7 * 86_400])
async def test_a_moment_can_be_a_number_of_seconds_from_now(database: Database, seconds: float) -> None:
    async with database.read() as session:
        now, moment = (
            await session.execute(select(dialects.now(), dialects.seconds_from_now(seconds)))
        ).one()

    assert abs((moment - now).total_seconds() - seconds) < 0.01


async def test_moments_of_the_clock_and_stored_ones_can_be_compared(database: Database) -> None:
    specimen = await _stored(database, at=dialects.now())

    async with database.read() as session:
        found = select(Specimen.id).where(Specimen.id == specimen.id)
        past = await session.scalar(found.where(Specimen.at > dialects.seconds_from_now(-60)))
        future = await session.scalar(found.where(Specimen.at > dialects.seconds_from_now(60)))

    assert (past, future) == (specimen.id, None)


async def test_one_statement_of_one_text_changes_any_number_of_rows(database: Database) -> None:
    specimens = [await _stored(database, exact=f"s{number}") for number in range(3)]
    rows: list[dict[str, int | str | None]] = [
        {"id": specimens[0].id, "label": 'it\'s; -- "quoted" \\ 🦄'},
        {"id": specimens[2].id, "label": None},
    ]

    async def work(session: AsyncSession) -> None:
        given = dialects.values_of(dialects.name_of(session), "rows", id=int, label=str)
        label = select(given.c.label).where(given.c.id == Specimen.id).scalar_subquery()
        statement = update(Specimen).where(Specimen.id.in_(select(given.c.id))).values(free=label)
        options = {"synchronize_session": False}
        await session.execute(statement, {"rows": json.dumps(rows)}, execution_options=options)

    await database.transact(work)

    async with database.read() as session:
        found = await session.execute(select(Specimen.exact, Specimen.free).order_by(Specimen.id))
        assert found.all()[-3:] == [("s0", rows[0]["label"]), ("s1", None), ("s2", None)]


async def test_numbers_in_such_a_statement_keep_their_64_bits(database: Database) -> None:
    async with database.read() as session:
        given = dialects.values_of(dialects.name_of(session), "rows", n=int)
        rows = json.dumps([{"n": 2**63 - 1}, {"n": -(2**63)}])
        found = (await session.scalars(select(given.c.n).order_by(given.c.n), {"rows": rows})).all()

    assert found == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize(
    ("needle", "found"),
    [
        ("50%", ["50% off"]),
        ("%", ["50% off"]),
        ("_", ["snake_case"]),
        ("\\", ["back\\slash"]),
        ("' OR 1=1 -- ", []),
        ("SNAKE_", ["snake_case"]),
        ("🦄", ["🦄"]),
        ("", ["50% off", "50 and off", "snake_case", "snakeXcase", "back\\slash", "🦄"]),
    ],
)
async def test_a_search_takes_every_character_literally(
    database: Database, needle: str, found: list[str]
) -> None:
    texts = ["50% off", "50 and off", "snake_case", "snakeXcase", "back\\slash", "🦄"]

    async def work(session: AsyncSession) -> list[str | None]:
        await session.execute(insert(Specimen), [{"free": free} for free in texts])
        statement = (
            select(Specimen.free).where(dialects.contains(Specimen.free, needle)).order_by(Specimen.id)
        )
        return list(await session.scalars(statement))

    assert await database.transact(work) == found


# --- engines ------------------------------------------------------------------------------------


@only_mariadb
async def test_connections_to_mariadb_read_what_is_committed_and_wait_briefly(
    make_settings: MakeSettings,
) -> None:
    database = Database(make_settings(Settings, db_lock_timeout=7, db_timeout=11.5))

    async with database.read() as session:
        names = (
            "tx_isolation",
            "innodb_lock_wait_timeout",
            "idle_transaction_timeout",
            "time_zone",
            "character_set_client",
        )
        found = (await session.execute(text("SELECT " + ", ".join(f"@@{name}" for name in names)))).one()
    await database.close()

    assert tuple(found) == ("READ-COMMITTED", 7, 12, "+00:00", "utf8mb4")


@only_sqlite
async def test_connections_to_sqlite_are_durable_and_do_not_block_readers(
    make_settings: MakeSettings,
) -> None:
    database = Database(make_settings(Settings, db_lock_timeout=7))

    async with database.read() as session:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [await session.scalar(text(f"PRAGMA {name}")) for name in names]
    await database.close()

    assert found == ["wal", 2, 1, 7000]


async def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    async def work(session: AsyncSession) -> int | None:
        session.add(Specimen(exact="new"))
        await session.flush()
        async with database.read() as reader:
            return await reader.scalar(select(func.count()).where(Specimen.exact == "new"))

    assert await database.transact(work) == 0
