"""Locks and guards: what is locked, in which order, and that nothing is written to a row that changed.

The guards overlap: without a row lock, the guard in a WHERE clause notices the change and the
transaction begins again, which only costs time. So these tests also look at how often that happened.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.errors import DatabaseContended
from orders import commands
from orders.models import Delta, Movement, Order
from orders.stock import Change, lock_products, write_changes
from tests.client import Reply, refused
from tests.observed import Sample, statements_sent
from tests.orders.shop import Level, OpenShop, Shop, until

HOUR = timedelta(hours=1)
Step = Callable[[Shop, int], Coroutine[Any, Any, Reply]]
on_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@asynccontextmanager
async def holding(shop: Shop, table: str, row: int) -> AsyncIterator[None]:
    """Somebody else's transaction, which has locked this row."""
    async with shop.database.writers.connect() as other:
        await other.execute(text(f"SELECT id FROM {table} WHERE id = :row FOR UPDATE"), {"row": row})  # noqa: S608 - ours
        yield


async def free(shop: Shop, table: str) -> list[int]:
    """The rows that nobody has locked."""
    async with shop.database.writers.connect() as other:
        found = await other.execute(text(f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED"))  # noqa: S608 - ours
        return sorted(row.id for row in found)


async def waits_for_a_lock(shop: Shop) -> bool:
    """Whether a transaction in the shop's database waits for a row lock."""
    statement = (
        "SELECT COUNT(*) FROM information_schema.innodb_trx JOIN information_schema.processlist "
        "ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()"
    )
    async with shop.database.read() as session:
        return bool(await session.scalar(text(statement)))


@asynccontextmanager
async def unfinished(
    shop: Shop, work: Callable[[AsyncSession], Awaitable[object]]
) -> AsyncIterator[asyncio.Event]:
    """A transaction that has done its work and commits with the event, or at the end of the block."""
    done, go_on = asyncio.Event(), asyncio.Event()

    async def stop(session: AsyncSession) -> None:
        await work(session)
        done.set()
        await go_on.wait()

    task = asyncio.create_task(shop.database.transact(stop))
    await done.wait()
    try:
        yield go_on
    finally:
        go_on.set()
        await task


# --- the order of locks -------------------------------------------------------------------------


@on_mariadb
@pytest.mark.parametrize("first", [0, 1])
async def test_products_are_locked_in_id_order_whatever_the_order_of_the_lines(
    shop: Shop, first: int
) -> None:
    low, high, other = [await shop.product() for _ in range(3)]
    lines = [low, high] if first == 0 else [high, low]

    async with holding(shop, "products", high):
        creating = asyncio.create_task(shop.create(dict.fromkeys(lines, 1)))
        await until(lambda: waits_for_a_lock(shop))
        unlocked = await free(shop, "products")

    assert (await creating).status == 201
    assert unlocked == [other]


@on_mariadb
async def test_the_orders_of_a_list_are_locked_in_id_order(shop: Shop) -> None:
    product_id = await shop.product()
    low, high, other = [await shop.created({product_id: 1}) for _ in range(3)]

    async with holding(shop, "orders", high):
        confirming = asyncio.create_task(
            shop.database.transact(lambda session: commands.confirm_orders(session, [high, low]))
        )
        await until(lambda: waits_for_a_lock(shop))
        unlocked = await free(shop, "orders")

    await confirming
    assert unlocked == [other]


@on_mariadb
@pytest.mark.parametrize("step", [Shop.confirm, Shop.cancel])
async def test_an_order_is_locked_before_its_products(shop: Shop, step: Step) -> None:
    product_id = await shop.product()
    order_id, other = await shop.created({product_id: 1}), await shop.created({product_id: 1})

    async with holding(shop, "products", product_id):
        stepping = asyncio.create_task(step(shop, order_id))
        await until(lambda: waits_for_a_lock(shop))
        unlocked = await free(shop, "orders")

    assert (await stepping).status == 200
    assert unlocked == [other]


@on_mariadb
async def test_a_command_locks_its_own_rows_and_no_others(shop: Shop) -> None:
    products = [await shop.product() for _ in range(5)]
    orders = [await shop.created({product_id: 1}) for product_id in products]

    async with unfinished(shop, lambda session: commands.confirm_orders(session, [orders[2]])):
        unlocked = await free(shop, "orders"), await free(shop, "products")

    assert unlocked == (orders[:2] + orders[3:], products[:2] + products[3:])


@on_mariadb
@pytest.mark.parametrize("bystanders", [1, 50])
async def test_a_command_does_not_wait_for_rows_that_are_none_of_its_business(
    open_shop: OpenShop, bystanders: int
) -> None:
    shop = await open_shop(db_lock_timeout=1, db_attempts=1)
    products = await shop.products(bystanders + 4)
    orders = [await shop.created({product_id: 1}) for product_id in products]
    own = dict.fromkeys(products[-4:], 1)

    async with holding(shop, "products", products[0]), holding(shop, "orders", orders[0]):
        created = await shop.create(own)
        order_id = created.json["data"]["id"]
        replies = [
            created,
            await shop.confirm(order_id),
            await shop.cancel(order_id),
            await shop.cancel(orders[1]),
        ]
        replies.append(await shop.adjust_stock(products[1], 1))

    assert [reply.status for reply in replies] == [201, 200, 200, 200, 200]


@on_mariadb
async def test_a_list_of_a_thousand_products_locks_these_and_no_others(open_shop: OpenShop) -> None:
    shop = await open_shop(db_lock_timeout=1, db_attempts=1)
    products = await shop.products(1201)
    requests = [
        commands.NewOrder(shop.customer_id, dict.fromkeys(products[first : first + 200], 1), None, HOUR)
        for first in range(1, 1201, 200)
    ]

    async with holding(shop, "products", products[0]):
        orders = await shop.database.transact(lambda session: commands.create_orders(session, requests))
        ids = [order.id for order in orders if isinstance(order, Order)]
        confirmed = await shop.database.transact(lambda session: commands.confirm_orders(session, ids))

    assert len(ids) == len(confirmed) == 6
    assert await shop.discrepancies() == []


# --- what waits for what ------------------------------------------------------------------------


@on_mariadb
async def test_a_confirmation_sees_a_cancellation_that_was_under_way(shop: Shop) -> None:
    stale = Sample("b2b_transaction_retries_total", error="stale")
    product_id = await shop.product(stock=10)
    order_id = await shop.created({product_id: 3})
    request = commands.Cancellation(order_id, None, window=timedelta())

    async with unfinished(shop, lambda session: commands.cancel_orders(session, [request])) as commit:
        confirming = asyncio.create_task(shop.confirm(order_id))
        await until(lambda: waits_for_a_lock(shop))
        commit.set()
        reply = await confirming

    refused(reply, 409, "order.not_confirmable", "order_status", "retry_needs_new_key")
    assert await shop.level(product_id) == Level(stock=10, reserved=0)
    assert stale.moved == 0


@on_mariadb
async def test_an_order_sees_a_reservation_that_was_under_way(shop: Shop) -> None:
    stale = Sample("b2b_transaction_retries_total", error="stale")
    product_id = await shop.product(stock=10)
    first = commands.NewOrder(shop.customer_id, {product_id: 8}, None, ttl=HOUR)

    async with unfinished(shop, lambda session: commands.create_orders(session, [first])) as commit:
        creating = asyncio.create_task(shop.create({product_id: 3}))
        await until(lambda: waits_for_a_lock(shop))
        commit.set()
        reply = await creating

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"][0]["available"] == 2
    assert stale.moved == 0


@on_mariadb
async def test_a_purchase_order_number_that_is_being_taken_is_waited_for(shop: Shop) -> None:
    duplicates = Sample("b2b_transaction_retries_total", error="duplicate")
    mine, yours = await shop.product(), await shop.product()
    first = commands.NewOrder(shop.customer_id, {mine: 1}, "PO-1", HOUR)

    async with unfinished(shop, lambda session: commands.create_orders(session, [first])) as commit:
        creating = asyncio.create_task(shop.create({yours: 1}, purchase_order_number="PO-1"))
        await until(lambda: waits_for_a_lock(shop))
        commit.set()
        reply = await creating

    refused(reply, 409, "order.purchase_order_taken", "order_id")
    assert await shop.level(yours) == Level(stock=10, reserved=0)
    assert duplicates.moved == 1


@on_sqlite
async def test_a_writer_of_another_process_is_waited_for_before_anything_is_read(open_shop: OpenShop) -> None:
    timeouts = Sample("b2b_transaction_retries_total", error="lock_timeout")
    shop, replica = await open_shop(), await open_shop()
    product_id = await shop.product(stock=10)
    first = commands.NewOrder(shop.customer_id, {product_id: 8}, None, ttl=HOUR)

    async with unfinished(shop, lambda session: commands.create_orders(session, [first])) as commit:
        with statements_sent(replica.database) as sent:
            creating = asyncio.create_task(replica.create({product_id: 3}))
            await asyncio.sleep(0.2)
            sent_meanwhile = list(sent)
        commit.set()
        reply = await creating

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"][0]["available"] == 2
    assert sent_meanwhile == []
    assert timeouts.moved == 0


# --- guards -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delta",
    [Delta(0, 11), Delta(0, -1), Delta(-11, 0), Delta(-1, -1)],
    ids=["hold", "release", "take", "sell"],
)
async def test_a_change_that_a_product_does_not_allow_is_not_written(
    open_shop: OpenShop, delta: Delta
) -> None:
    shop = await open_shop(db_attempts=1)
    product_id, other = await shop.products(2)
    changes = [Change(other, Movement.ADJUST, Delta(1, 0)), Change(product_id, Movement.ADJUST, delta)]

    async def work(session: AsyncSession) -> None:
        _, now = await lock_products(session, [product_id, other])
        await write_changes(session, changes, now)

    with pytest.raises(DatabaseContended, match="stale"):
        await shop.database.transact(work)

    assert await shop.level(product_id) == await shop.level(other) == Level(stock=10, reserved=0)
    assert await shop.discrepancies() == []


@pytest.fixture
async def meddling(open_shop: OpenShop) -> AsyncIterator[Shop]:
    """A database in which an order changes whenever a product does: under the lock of its transaction."""
    shop = await open_shop(db_attempts=1)
    meddle = "UPDATE orders SET version = version + 1"
    body = f"BEGIN {meddle}; END" if shop.database.url.get_backend_name() == "sqlite" else meddle
    await shop.sql(f"CREATE TRIGGER meddle AFTER UPDATE ON products FOR EACH ROW {body}")
    yield shop
    await shop.sql("DROP TRIGGER meddle")


@pytest.mark.parametrize("step", [Shop.confirm, Shop.cancel])
async def test_an_order_that_changed_under_its_lock_is_not_overwritten(meddling: Shop, step: Step) -> None:
    product_id = await meddling.product(stock=10)
    order_id = await meddling.created({product_id: 3})

    reply = await step(meddling, order_id)

    problem = refused(reply, 503, "db.contended")
    assert problem["retryable"] is True
    assert (await meddling.show(order_id))["status"] == "CREATED"
    assert await meddling.level(product_id) == Level(stock=10, reserved=3)
    assert await meddling.discrepancies() == []


@pytest.mark.parametrize(
    "change", ["stock = -1, reserved = -1", "reserved = -1", "reserved = 11", "stock = 2"]
)
async def test_the_database_itself_refuses_levels_that_cannot_be(shop: Shop, change: str) -> None:
    product_id = await shop.product(stock=10)
    await shop.created({product_id: 3})

    with pytest.raises(DBAPIError, match=r"ck_products|CONSTRAINT"):
        await shop.sql(f"UPDATE products SET {change}")  # noqa: S608 - ours

    assert await shop.level(product_id) == Level(stock=10, reserved=3)
