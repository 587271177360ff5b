from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import Database
from customers import queries
from customers.models import Customer
from customers.schemas import FindCustomers
from customers.settings import Settings
from tests.databases import MakeSettings
from tests.observed import statements_sent

ROWS = 3_000
LIMIT = 20


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """Many customers."""
    database = Database(make_settings(Settings))
    now = dialects.now()

    async def fill(session: AsyncSession) -> None:
        rows = [{"name": f"Customer {number}", "email": f"c{number}@example.com"} for number in range(ROWS)]
        await session.execute(insert(Customer).values(created_at=now, updated_at=now), rows)

    await database.transact(fill)
    yield database
    await database.close()


async def _deep(session: AsyncSession) -> FindCustomers:
    """The query of a page that has almost all rows before it."""
    first = await session.scalar(text("SELECT MIN(id) FROM customers"))
    return FindCustomers(limit=LIMIT, cursor=FindCustomers().cursor_after((first + LIMIT + 5,)))


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_a_deep_page_reads_as_many_rows_as_the_first_on_mariadb(database: Database) -> None:
    async def rows_read(session: AsyncSession) -> int:
        """How many rows the server has read for this session, those of this question left out."""
        status = text(
            "SHOW SESSION STATUS WHERE Variable_name RLIKE '^Handler_read_(first|key|last|next|prev)$'"
        )
        return sum(int(row[1]) for row in await session.execute(status))

    async def cost(session: AsyncSession, query: FindCustomers) -> int:
        before = await rows_read(session)
        found = await queries.find_customers(session, query)
        assert len(found) == LIMIT + 1
        return await rows_read(session) - before

    async with database.read() as session:
        first = await cost(session, FindCustomers(limit=LIMIT))
        deep = await cost(session, await _deep(session))

    assert first == deep == LIMIT + 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_deep_page_is_found_through_the_key_on_sqlite(database: Database) -> None:
    async with database.read() as session:
        query = await _deep(session)
        with statements_sent(database) as statements:
            found = await queries.find_customers(session, query)
        [statement] = statements
        connection = await session.connection()
        marks = (1,) * statement.count("?")
        plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", marks)).all()

    assert len(found) == LIMIT + 1
    assert [row[-1] for row in plan] == ["SEARCH customers USING INTEGER PRIMARY KEY (rowid<?)"]
