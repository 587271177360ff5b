"""Lists on both databases: filters, and pages that stay right and cheap."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import insert, literal, text

from orders.models import Order, Status
from tests.client import Client, refused
from tests.orders.shop import ORDERS, PRODUCTS, OpenShop, Shop, new_customer

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


async def listed(shop: Shop, **filters: Any) -> list[int]:
    """The ids of the orders on the only page of a list."""
    reply = await shop.get(f"{ORDERS}/find-all", params={"limit": 100, **filters})
    assert reply.status == 200, reply.text
    assert reply.json["meta"] == {"limit": 100, "next_cursor": None, "has_next": False}
    return [order["id"] for order in reply.json["data"]]


async def pages(shop: Shop, path: str, **filters: Any) -> AsyncIterator[list[int]]:
    """The ids of a list, page by page."""
    while True:
        reply = await shop.get(path, params=filters)
        assert reply.status == 200, reply.text
        meta = reply.json["meta"]
        assert meta["has_next"] == (meta["next_cursor"] is not None)
        yield [row["id"] for row in reply.json["data"]]
        if not meta["has_next"]:
            return
        filters["cursor"] = meta["next_cursor"]


async def make_orders(shop: Shop, count: int, *, together: bool = False, **columns: Any) -> list[int]:
    """Rows of orders in the order of the list: newest first, a minute apart or all at one moment."""
    rows = [
        {
            "customer_id": shop.customer_id,
            "status": Status.CONFIRMED,
            "currency": "USD",
            "total_cents": 0,
            "correlation_id": "bulk",
            "version": 1,
            "created_at": NOON - (timedelta() if together else timedelta(minutes=number)),
            "expires_at": NOON + DAY,
            **columns,
        }
        for number in range(count)
    ]
    await shop.database.transact(lambda session: session.execute(insert(Order), rows))
    async with shop.database.read() as session:
        found = await session.execute(text("SELECT id FROM orders ORDER BY created_at DESC, id DESC"))
        return [row.id for row in found]


# --- filters ------------------------------------------------------------------------------------


async def test_orders_are_listed_newest_first_with_their_items(shop: Shop) -> None:
    product_id = await shop.product()
    orders = [await shop.created({product_id: qty}) for qty in (1, 2)]

    reply = await shop.get(f"{ORDERS}/find-all")

    shown = [await shop.show(order_id) for order_id in reversed(orders)]
    for order in shown:
        del order["history"]
    assert reply.json == {"data": shown, "meta": {"limit": 20, "next_cursor": None, "has_next": False}}


async def test_orders_are_listed_by_status(shop: Shop) -> None:
    product_id = await shop.product()
    created, confirmed = await shop.created({product_id: 1}), await shop.confirmed({product_id: 1})
    canceled = await shop.created({product_id: 1})
    await shop.cancel(canceled)

    assert await listed(shop, status="CREATED") == [created]
    assert await listed(shop, status="CONFIRMED") == [confirmed]
    assert await listed(shop, status="CANCELED") == [canceled]


async def test_orders_are_listed_by_customer(shop: Shop, peer: Client) -> None:
    product_id, other = await shop.product(), await new_customer(peer)
    mine = await shop.created({product_id: 1})
    theirs = await shop.created({product_id: 1}, customer_id=other)

    assert await listed(shop, customer_id=shop.customer_id) == [mine]
    assert await listed(shop, customer_id=other) == [theirs]


async def test_orders_are_listed_by_correlation_id_and_by_number(shop: Shop) -> None:
    product_id = await shop.product()
    named = {"X-Correlation-Id": "req-1"}
    body = {"customer_id": shop.customer_id, "items": [{"product_id": product_id, "qty": 1}]}
    mine = (await shop.post(f"{ORDERS}/create-order", body, headers=named)).json["data"]
    await shop.created({product_id: 1})

    assert await listed(shop, correlation_id="req-1") == [mine["id"]]
    assert await listed(shop, correlation_id="req-2") == []
    assert await listed(shop, order_number=mine["order_number"]) == [mine["id"]]
    assert await listed(shop, order_number="ORD-99999999") == []


async def test_the_ledger_of_an_order_is_listed_newest_first(shop: Shop) -> None:
    desk, lamp = await shop.product(), await shop.product()
    order_id = await shop.confirmed({desk: 1, lamp: 2})
    await shop.created({desk: 1})

    whole = (await shop.get(f"{ORDERS}/{order_id}/movements")).json["data"]
    paged = [line async for page in pages(shop, f"{ORDERS}/{order_id}/movements", limit=3) for line in page]
    missing = await shop.get(f"{ORDERS}/999/movements")

    lines = [
        (line["kind"], line["product_id"], line["stock_delta"], line["reserved_delta"]) for line in whole
    ]
    assert sorted(lines[:2]) == [("sale", desk, -1, -1), ("sale", lamp, -2, -2)]
    assert sorted(lines[2:]) == [("reserve", desk, 0, 1), ("reserve", lamp, 0, 2)]
    assert paged == [line["id"] for line in whole] == sorted(paged, reverse=True)
    refused(missing, 404, "order.not_found")


@pytest.fixture
async def days(shop: Shop) -> dict[str, int]:
    """Orders at the edges of 31 January 2026, by name."""
    moments = {
        "the last moment of the 30th": datetime(2026, 1, 31, tzinfo=UTC) - MICROSECOND,
        "the first moment of the 31st": datetime(2026, 1, 31, tzinfo=UTC),
        "noon of the 31st": NOON,
        "the last moment of the 31st": datetime(2026, 2, 1, tzinfo=UTC) - MICROSECOND,
        "the first moment of the 1st": datetime(2026, 2, 1, tzinfo=UTC),
    }
    product_id = await shop.product()
    orders = {name: await shop.created({product_id: 1}) for name in moments}
    for name, moment in moments.items():
        await shop.set_order(orders[name], created_at=literal(moment, Order.created_at.type))
    return orders


@pytest.mark.parametrize(
    ("filters", "first", "last"),
    [
        ({"from": "2026-01-31"}, 1, 4),
        ({"to": "2026-01-31"}, 0, 3),
        ({"from": "2026-01-31", "to": "2026-01-31"}, 1, 3),
        ({"to": "2026-01-30"}, 0, 0),
        ({"from": "2026-02-01"}, 4, 4),
        ({"from": "2026-01-31T12:00:00Z"}, 2, 4),
        ({"from": "2026-01-31T12:00:00.000001Z"}, 3, 4),
        ({"to": "2026-01-31T12:00:00Z"}, 0, 2),
        ({"to": "2026-01-31T11:59:59.999999Z"}, 0, 1),
        ({"from": "2026-01-31T13:00:00+01:00", "to": "2026-01-31T07:00:00-05:00"}, 2, 2),
        ({"from": "2026-01-31", "to": "2026-01-30"}, 1, 0),
    ],
)
async def test_orders_are_listed_by_time(
    shop: Shop, days: dict[str, int], filters: dict[str, str], first: int, last: int
) -> None:
    wanted = list(days.values())[first : last + 1]

    assert await listed(shop, **filters) == wanted[::-1]


async def test_filters_are_anded(shop: Shop, days: dict[str, int], peer: Client) -> None:
    noon, other = days["noon of the 31st"], await new_customer(peer)
    await shop.confirm(noon)
    mine = {"status": "CONFIRMED", "customer_id": shop.customer_id, "from": "2026-01-31", "to": "2026-01-31"}

    assert await listed(shop, **mine) == [noon]
    for otherwise in (
        {"status": "CANCELED"},
        {"customer_id": other},
        {"from": "2026-02-01"},
        {"to": "2026-01-30"},
    ):
        assert await listed(shop, **(mine | otherwise)) == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "query:limit"),
        ("limit=101", "query:limit"),
        ("limit=ten", "query:limit"),
        ("status=created", "query:status"),
        ("correlation_id=no%20id", "query:correlation_id"),
        ("order_number=ORD-1", "query:order_number"),
        ("customer_id=0", "query:customer_id"),
        ("from=yesterday", "query:from"),
        ("to=2026-02-30", "query:to"),
        ("to=9999-12-31", "query:to"),
        ("cursor=none", "query:cursor"),
        ("cursor=" + 513 * "x", "query:cursor"),
        ("page=2", "query:page"),
        ("status=CREATED&status=CANCELED", "query:status"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_list_that_cannot_be_is_refused(shop: Shop, query: str, pointer: str) -> None:
    reply = await shop.get(f"{ORDERS}/find-all?{query}")

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


# --- pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
async def test_pages_show_every_order_once(shop: Shop, together: bool) -> None:  # noqa: FBT001 - a parameter
    orders = await make_orders(shop, 25, together=together)

    found = [page async for page in pages(shop, f"{ORDERS}/find-all", limit=10)]

    assert found == [orders[:10], orders[10:20], orders[20:]]


async def test_there_is_no_page_after_an_exactly_full_one(shop: Shop) -> None:
    orders = await make_orders(shop, 20)

    found = [page async for page in pages(shop, f"{ORDERS}/find-all", limit=10)]

    assert found == [orders[:10], orders[10:]]


async def test_there_is_one_page_of_nothing(shop: Shop) -> None:
    assert [page async for page in pages(shop, f"{ORDERS}/find-all")] == [[]]


async def test_orders_that_are_made_meanwhile_move_nothing(shop: Shop) -> None:
    orders = await make_orders(shop, 25)
    product_id = await shop.product()

    found = []
    async for page in pages(shop, f"{ORDERS}/find-all", limit=10):
        found.append(page)
        await asyncio.gather(*(shop.created({product_id: 1}) for _ in range(3)))

    assert found == [orders[:10], orders[10:20], orders[20:]]


async def test_pages_keep_to_the_filters(shop: Shop) -> None:
    filters = {"limit": 2, "status": "CONFIRMED", "from": "2026-01-31", "customer_id": shop.customer_id}
    orders = await make_orders(shop, 5)
    await make_orders(shop, 5, status=Status.CANCELED)

    found = [page async for page in pages(shop, f"{ORDERS}/find-all", **filters)]

    assert found == [orders[:2], orders[2:4], orders[4:]]


async def test_a_cursor_belongs_to_its_filters(shop: Shop) -> None:
    await make_orders(shop, 3)
    cursor = (await shop.get(f"{ORDERS}/find-all?limit=1")).json["meta"]["next_cursor"]

    of_other_filters = await shop.get(f"{ORDERS}/find-all?status=CONFIRMED&cursor={cursor}")
    of_another_list = await shop.get(f"{PRODUCTS}/find-all?cursor={cursor}")
    with_another_limit = await shop.get(f"{ORDERS}/find-all?limit=2&cursor={cursor}")

    for reply in (of_other_filters, of_another_list):
        problem = refused(reply, 400, "request.invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["query:cursor"]
    assert len(with_another_limit.json["data"]) == 2


async def test_pages_show_every_product_once_while_others_are_added(shop: Shop) -> None:
    products = [await shop.product() for _ in range(5)][::-1]

    found = []
    async for page in pages(shop, f"{PRODUCTS}/find-all", limit=2):
        found.append(page)
        await shop.product()

    assert found == [products[:2], products[2:4], products[4:]]


@pytest.mark.parametrize(
    "filters", [{}, {"status": "CONFIRMED"}, {"customer_id": None}, {"from": "2020-01-01"}]
)
@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_a_deep_page_reads_no_more_rows_than_the_first(
    open_shop: OpenShop, filters: dict[str, Any]
) -> None:
    shop = await open_shop(db_pool_size=1)
    await make_orders(shop, 1000)
    given = {name: value or shop.customer_id for name, value in filters.items()}
    every_page = pages(shop, f"{ORDERS}/find-all", limit=100, **given)

    read = [await rows_read(shop) async for _ in every_page]

    by_page = [after - before for before, after in pairwise(read)]
    assert len(by_page) == 9
    assert max(by_page) <= 2 * 100 + 10


async def rows_read(shop: Shop) -> int:
    """How many rows the server has read for the only connection of the shop."""
    async with shop.database.read() as session:
        rows = await session.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
        return sum(int(value) for _, value in rows)
