"""Many at once, through HTTP, on both databases; on MariaDB through two replicas.

Right results are not enough: the guards overlap, so that a missing lock only shows in transactions
that have to begin again. Nothing here may do so, and nothing may be answered with a 5xx.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

import pytest

from chassis import dialects
from orders import commands
from orders.models import Order
from tests.client import Reply
from tests.observed import Sample
from tests.orders.shop import ORDERS, Level, OpenShop, Shop

# A slow machine makes these tests slow, not red.
PATIENT = {
    "db_pool_timeout": 60,
    "db_lock_timeout": 50,
    "db_timeout": 60,
    "peer_timeout": 60,
    "peer_deadline": 60,
    "join_timeout": 60,
}


@pytest.fixture
async def shop(backend: str, open_shop: OpenShop) -> AsyncIterator[Shop]:
    """A shop that must end in order, without a transaction that had to begin again."""
    retries = {
        error: Sample("b2b_transaction_retries_total", error=error)
        for error in ("deadlock", "lock_timeout", "record_changed", "stale")
    }
    shop = await open_shop(replicas=2 if backend == "mariadb" else 1, **PATIENT)
    yield shop
    assert {error: sample.moved for error, sample in retries.items()} == dict.fromkeys(retries, 0)
    assert await shop.discrepancies() == []


async def together(requests: Iterable[Coroutine[Any, Any, Reply]]) -> Counter[str]:
    """Send all at once; count the answers: the status of the order, or the code of the problem."""
    replies = await asyncio.gather(*requests)
    assert [reply.text for reply in replies if reply.status >= 500] == []
    return Counter(
        reply.json["code"] if reply.status >= 400 else reply.json["data"].get("status", "ADJUSTED")
        for reply in replies
    )


async def orders_in(shop: Shop, status: str) -> list[int]:
    """The ids of all orders in this state."""
    found: list[int] = []
    page = {"status": status, "limit": "100"}
    while True:
        reply = await shop.get(f"{ORDERS}/find-all", params=page)
        found += [order["id"] for order in reply.json["data"]]
        if not reply.json["meta"]["has_next"]:
            return found
        page["cursor"] = reply.json["meta"]["next_cursor"]


# --- one product --------------------------------------------------------------------------------


async def test_200_orders_at_once_for_a_stock_of_100_reserve_and_sell_exactly_100(shop: Shop) -> None:
    product_id = await shop.product(stock=100)

    created = await together(shop.create({product_id: 1}) for _ in range(200))
    reserved = await shop.level(product_id)
    orders = await orders_in(shop, "CREATED")
    confirmed = await together(shop.confirm(order_id) for order_id in 2 * orders)

    assert created == {"CREATED": 100, "stock.insufficient": 100}
    assert reserved == Level(stock=100, reserved=100)
    assert confirmed == {"CONFIRMED": 100, "order.not_confirmable": 100}
    assert await shop.level(product_id) == Level(stock=0, reserved=0)
    assert Counter(kind for kind, _, _ in await shop.ledger(product_id)) == {
        "initial": 1,
        "reserve": 100,
        "sale": 100,
    }


async def test_100_buyers_at_once_of_a_stock_of_50_buy_exactly_50(shop: Shop) -> None:
    product_id = await shop.product(stock=50)

    async def buy(number: int) -> Reply:
        reply = await shop.create({product_id: 1}, key=f"create-{number}")
        return await shop.confirm(reply.json["data"]["id"]) if reply.status == 201 else reply

    bought = await together(buy(number) for number in range(100))

    assert bought == {"CONFIRMED": 50, "stock.insufficient": 50}
    assert await shop.level(product_id) == Level(stock=0, reserved=0)
    assert len(await orders_in(shop, "CONFIRMED")) == await shop.count(Order) == 50


async def test_what_is_reserved_is_sold_however_many_try_to_count_it_out(shop: Shop) -> None:
    product_id = await shop.product(stock=25)
    orders = [await shop.created({product_id: 1}) for _ in range(20)]

    answers = await together(
        request
        for order_id in orders
        for request in (shop.confirm(order_id), shop.adjust_stock(product_id, -1))
    )

    assert answers == {"CONFIRMED": 20, "ADJUSTED": 5, "stock.insufficient": 15}
    assert await shop.level(product_id) == Level(stock=0, reserved=0)


async def test_the_stock_of_expired_orders_goes_to_those_who_ask_for_it(shop: Shop) -> None:
    product_id = await shop.product(stock=20)
    expired = [await shop.created({product_id: 1}) for _ in range(20)]
    for order_id in expired:
        await shop.set_order(order_id, expires_at=dialects.now())

    confirming = together(shop.confirm(order_id) for order_id in expired)
    creating = together(shop.create({product_id: 1}) for _ in range(40))
    confirmed, created, _ = await asyncio.gather(confirming, creating, commands.expire_all(shop.database))

    assert confirmed.total() == confirmed["order.expired"] + confirmed["order.not_confirmable"] == 20
    assert created == {"CREATED": 20, "stock.insufficient": 20}
    assert await shop.level(product_id) == Level(stock=20, reserved=20)


# --- against each other -------------------------------------------------------------------------


async def test_orders_created_against_orders_canceled_lose_no_unit(shop: Shop) -> None:
    product_id = await shop.product(stock=30)
    orders = [await shop.created({product_id: 1}) for _ in range(30)]

    answers = await together(
        request for order_id in orders for request in (shop.create({product_id: 1}), shop.cancel(order_id))
    )

    assert answers["CANCELED"] == 30
    assert answers["CREATED"] + answers["stock.insufficient"] == 30
    assert await shop.level(product_id) == Level(stock=30, reserved=answers["CREATED"])


async def test_orders_confirmed_against_being_canceled_move_each_unit_once(shop: Shop) -> None:
    product_id = await shop.product(stock=30)
    orders = [await shop.created({product_id: 1}) for _ in range(30)]

    answers = await together(
        request for order_id in orders for request in (shop.confirm(order_id), shop.cancel(order_id))
    )

    assert answers["CANCELED"] == 30
    assert answers["CONFIRMED"] + answers["order.not_confirmable"] == 30
    assert await orders_in(shop, "CANCELED") == orders[::-1]
    assert await shop.level(product_id) == Level(stock=30, reserved=0)
    kinds = Counter(kind for kind, _, _ in await shop.ledger(product_id))
    assert kinds["sale"] == kinds["return"] == answers["CONFIRMED"]
    assert kinds["release"] == answers["order.not_confirmable"]


async def test_an_order_that_many_cancel_is_canceled_once(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.confirmed({product_id: 3})

    answers = await together(shop.cancel(order_id, f"Reason {number}") for number in range(20))

    assert answers == {"CANCELED": 20}
    assert await shop.level(product_id) == Level(stock=10, reserved=0)
    assert len((await shop.show(order_id))["history"]) == 3


# --- many products ------------------------------------------------------------------------------


async def test_crossed_baskets_never_deadlock(shop: Shop) -> None:
    products = [await shop.product(stock=10_000) for _ in range(4)]
    baskets = [products, products[::-1], products[1:] + products[:1], products[:2], products[1::-1]]

    created = await together(shop.create(dict.fromkeys(basket, 1)) for basket in 8 * baskets)
    orders = await orders_in(shop, "CREATED")
    moved = await together(
        step(order_id)
        for number, order_id in enumerate(orders)
        for step in ([shop.confirm, shop.cancel] if number % 2 else [shop.confirm])
    )

    assert created == {"CREATED": 40}
    assert moved["CANCELED"] == 20
    assert moved["CONFIRMED"] + moved["order.not_confirmable"] == 40


async def test_whatever_happens_at_once_every_unit_is_accounted_for(shop: Shop) -> None:
    rng = random.Random(1)  # noqa: S311 - not for secrets
    products = [await shop.product(stock=40) for _ in range(5)]
    orders = [await shop.created(dict.fromkeys(rng.sample(products, 2), 1)) for _ in range(20)]
    for order_id in orders[:5]:
        await shop.set_order(order_id, expires_at=dialects.now())

    def anything() -> Coroutine[Any, Any, Reply]:
        kind = rng.choice(["create", "create", "confirm", "confirm", "cancel", "adjust"])
        basket = {product_id: rng.randint(1, 5) for product_id in rng.sample(products, rng.randint(1, 5))}
        order_id = rng.choice(orders) + rng.randint(0, 40)
        if kind == "create":
            return shop.create(
                basket, key=f"create-{rng.randint(1, 40)}", purchase_order_number=str(rng.random())
            )
        if kind == "adjust":
            return shop.adjust_stock(rng.choice(products), rng.choice([-7, -1, 1, 5]))
        return (shop.confirm if kind == "confirm" else shop.cancel)(order_id)

    answers, _ = await asyncio.gather(
        together(anything() for _ in range(120)), commands.expire_all(shop.database)
    )

    assert answers.total() == 120
    assert answers["CREATED"] > 0
    assert answers["CONFIRMED"] > 0
