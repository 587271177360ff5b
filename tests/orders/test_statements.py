"""A command sends a fixed number of statements, whatever the number of items and of orders.

On MariaDB the server counts them: a driver may send one `executemany` as many statements.
"""

import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.errors import Problem
from orders import commands
from orders.commands import Cancellation, NewOrder
from orders.models import Order
from tests.client import Reply
from tests.observed import statements_sent
from tests.orders.shop import OpenShop, Shop

HOUR = timedelta(hours=1)
_numbers = itertools.count(1)


@pytest.fixture
async def shop(open_shop: OpenShop) -> Shop:
    """A shop whose statements all go through one connection."""
    return await open_shop(db_pool_size=1)


async def statements(shop: Shop, work: Callable[[], Awaitable[object]]) -> int:
    """How many statements `work` sends; on MariaDB with COMMIT and ROLLBACK, on SQLite without."""
    if shop.database.url.get_backend_name() == "sqlite":
        with statements_sent(shop.database) as sent:
            await work()
        return len(sent)
    first = await questions(shop)
    second = await questions(shop)
    await work()
    third = await questions(shop)
    return third - second - (second - first)


async def questions(shop: Shop) -> int:
    """How many statements the server has got through the shop's connection."""
    async with shop.database.read() as session:
        row = (await session.execute(text("SHOW SESSION STATUS LIKE 'Questions'"))).one()
        return int(row.Value)


async def assortment(shop: Shop, count: int) -> dict[int, int]:
    """One unit of each of so many new products."""
    return dict.fromkeys(await shop.products(count, stock=100), 1)


async def by_step(shop: Shop, quantities: dict[int, int]) -> dict[str, int]:
    """The statements of each step of an order, over HTTP and with keys."""
    counts: dict[str, int] = {}

    async def count(step: str, request: Callable[[str], Awaitable[Reply]]) -> int:
        replies: list[Reply] = []

        async def work() -> None:
            replies.append(await request(f"key-{next(_numbers)}"))

        counts[step] = await statements(shop, work)
        assert replies[0].status in (200, 201), replies[0].text
        return int(replies[0].json["data"]["id"])

    first = await count("create", lambda key: shop.create(quantities, key=key))
    await count("confirm", lambda key: shop.confirm(first, key=key))
    await count("cancel what is confirmed", lambda key: shop.cancel(first, "Changed", key=key))
    second = await shop.created(quantities)
    await count("cancel what is created", lambda key: shop.cancel(second, "Changed", key=key))
    return counts


async def test_an_order_of_200_items_takes_as_many_statements_as_an_order_of_1(shop: Shop) -> None:
    one, many = await assortment(shop, 1), await assortment(shop, 200)
    await by_step(shop, one)  # what a connection is asked only once, is asked now

    counts = await by_step(shop, one)

    assert await by_step(shop, many) == counts
    assert max(counts.values()) <= 15


async def by_command(shop: Shop, orders: int) -> dict[str, int]:
    """The statements of each command on a list of orders of the same three products."""
    made: list[int] = []
    quantities = await assortment(shop, 3)

    async def create(session: AsyncSession) -> None:
        numbers = [f"PO-{next(_numbers)}" for _ in range(orders)]
        requests = [NewOrder(shop.customer_id, quantities, number, HOUR) for number in numbers]
        made.extend(done(await commands.create_orders(session, requests)))

    async def confirm(session: AsyncSession) -> None:
        done(await commands.confirm_orders(session, made))

    async def cancel(session: AsyncSession) -> None:
        requests = [Cancellation(order_id, f"Reason {order_id}", HOUR) for order_id in made]
        done(await commands.cancel_orders(session, requests))

    def done(outcomes: list[Order | Problem]) -> list[int]:
        ids = [outcome.id for outcome in outcomes if isinstance(outcome, Order)]
        assert len(ids) == orders
        return ids

    async def count(work: Callable[[AsyncSession], Awaitable[None]]) -> int:
        return await statements(shop, lambda: shop.database.transact(work))

    return {"create": await count(create), "confirm": await count(confirm), "cancel": await count(cancel)}


async def test_a_list_of_64_orders_takes_as_many_statements_as_a_list_of_1(shop: Shop) -> None:
    await by_command(shop, 1)

    counts = await by_command(shop, 1)

    assert await by_command(shop, 64) == counts
    assert max(counts.values()) <= 12
    assert await shop.discrepancies() == []
