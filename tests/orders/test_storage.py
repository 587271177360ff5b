"""A database that takes no writes: read-only, full, locked for a backup. For real, on both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import migrations
from chassis.database import Database
from chassis.errors import DatabaseReadOnly
from dev.mariadb import Server, private_server
from orders.models import IdempotencyKey, Order, Product
from orders.settings import Settings
from tests.client import Reply, refused
from tests.databases import execute, migrate, on_database
from tests.orders.shop import OpenShop, Shop

SCHEMA = "storage"
_ROOM = "--innodb-data-file-path=ibdata1:12M;ibdata2:12M"
_MORE_ROOM = f"{_ROOM};ibdata3:12M:autoextend"
only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
MakeState = Callable[[Shop], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A MariaDB that no other test minds being read-only; its tables share a file of a fixed size."""
    with (
        TemporaryDirectory(prefix="b2b-storage-") as folder,
        private_server(Path(folder), [_ROOM, "--innodb-file-per-table=0"]) as server,
    ):
        # Who is no administrator: those may write to a database that is read-only.
        server.execute(f"CREATE USER app@'{server.host}'; GRANT ALL ON {SCHEMA}.* TO app@'{server.host}'")
        yield server


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest) -> Server | None:
    """This server, with an empty shop in it; None on SQLite."""
    if backend == "sqlite":
        return None
    own_server: Server = request.getfixturevalue("own_server")
    own_server.drop_database(SCHEMA)
    own_server.create_database(SCHEMA)
    migrate(Settings, own_server.url(SCHEMA))
    return own_server


@pytest.fixture
async def shop(open_shop: OpenShop, server: Server | None) -> Shop:
    """A shop on such a database."""
    if server is None:
        return await open_shop()
    return await open_shop(
        database_url=server.url(SCHEMA).replace("root@", "app@"), db_lock_timeout=1, db_attempts=2
    )


@contextmanager
def _on_every_connection(database: Database, statement: str, undo: str) -> Iterator[None]:
    """Have the pooled connections of writers execute a statement whenever they are used."""

    def execute_now(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()

    engine = database.writers.sync_engine
    event.listen(engine, "checkout", execute_now)
    yield
    event.remove(engine, "checkout", execute_now)
    statement = undo
    event.listen(engine, "checkout", execute_now)


@pytest.fixture
def read_only(server: Server | None) -> MakeState:
    """The database of a shop is read-only within the block."""

    @asynccontextmanager
    async def state(shop: Shop) -> AsyncIterator[None]:
        if server is None:
            with _on_every_connection(shop.database, "PRAGMA query_only = 1", "PRAGMA query_only = 0"):
                yield
        else:
            server.execute("SET GLOBAL read_only = 1")
            yield
            server.execute("SET GLOBAL read_only = 0")

    return state


@pytest.fixture
def full(server: Server | None) -> MakeState:
    """The database of a shop has no room within the block."""

    @asynccontextmanager
    async def state(shop: Shop) -> AsyncIterator[None]:
        if server is None:
            # The least that is possible is what the file has now.
            limit = "PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000"
            with _on_every_connection(shop.database, *limit):
                yield
        else:
            _fill(server)
            yield
            server.stop()  # what MariaDB says an operator should do: another file
            server.options = [_MORE_ROOM, "--innodb-file-per-table=0"]
            server.start()

    return state


def _fill(server: Server) -> None:
    url = server.url(SCHEMA)
    execute(url, "CREATE TABLE filler (b LONGBLOB) ENGINE = InnoDB")
    size = 4_000_000
    while size > 1_000:
        try:
            execute(url, f"INSERT INTO filler VALUES (REPEAT('x', {size}))")  # noqa: S608 - a number
        except OperationalError as error:
            assert "is full" in str(error.orig)  # noqa: PT017 - whatever else it is fails the test
            size //= 4


@pytest.fixture(params=["read_only", "full"])
def state(request: pytest.FixtureRequest) -> tuple[str, MakeState]:
    """A state in which the database takes no writes, and the code of its refusals."""
    return f"db.{request.param}", request.getfixturevalue(request.param)


async def _refusal(shop: Shop, items: dict[int, int], keys: Iterator[str]) -> tuple[Reply, str, int]:
    """Order until that is refused; return the refusal, its key, and how many orders came before it."""
    for accepted, key in enumerate(keys):
        reply = await shop.create(items, key=key)
        if reply.status != 201:
            return reply, key, accepted
    raise AssertionError("nothing was refused")


async def test_writes_are_refused_reads_go_on_and_nothing_is_lost(
    shop: Shop, state: tuple[str, MakeState]
) -> None:
    code, made = state
    products = await shop.products(200)
    items = dict.fromkeys(products, 1)
    order_id = await shop.created({products[0]: 1})

    async with made(shop):
        reply, key, accepted = await _refusal(shop, items, (f"key-{number}" for number in range(9)))
        refused(reply, 503, code)
        shown, ready = await shop.show(order_id), await shop.client.admin.get("/readyz")
        kept = await shop.count(Order), await shop.count(IdempotencyKey), await shop.discrepancies()
    again = await shop.create(items, key=key)
    replayed = await shop.create(items, key=key)

    assert (shown["status"], ready.status) == ("CREATED", 200)
    assert kept == (1 + accepted, accepted, [])
    assert (again.status, "Idempotent-Replayed" in again.headers) == (201, False)
    assert (replayed.body, "Idempotent-Replayed" in replayed.headers) == (again.body, True)
    assert (await shop.confirm(order_id)).status == 200
    assert await shop.discrepancies() == []


@only_mariadb
async def test_a_transaction_that_finds_the_database_read_only_at_its_end_is_undone(
    shop: Shop, read_only: MakeState
) -> None:
    product_id = await shop.product(stock=10)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await session.execute(update(Product).values(stock=1))
        begun.set()
        await go_on.wait()

    writing = asyncio.create_task(shop.database.transact(work))
    await begun.wait()
    async with read_only(shop):
        go_on.set()
        with pytest.raises(DatabaseReadOnly):
            await writing

    assert (await shop.level(product_id)).stock == 10
    assert (await shop.create({product_id: 10})).status == 201


@only_mariadb
async def test_a_backup_that_locks_all_tables_holds_up_nobody_for_long(shop: Shop, server: Server) -> None:
    product_id = await shop.product(stock=10)
    administrator = Settings(**on_database(server.url(SCHEMA)))

    async with migrations.connected(administrator) as backup:
        await backup.exec_driver_sql("FLUSH TABLES WITH READ LOCK")
        async with asyncio.timeout(60):
            reply = await shop.create({product_id: 1})
        level = await shop.level(product_id)

    refused(reply, 503, "db.contended")
    assert level.stock == 10
    assert (await shop.create({product_id: 1})).status == 201
    assert await shop.discrepancies() == []
