"""What time does to orders: reservations expire, the window to cancel closes; by the database's clock."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from orders import commands
from tests.client import Reply, refused
from tests.observed import Sample
from tests.orders.shop import ORDERS, Level, OpenShop, Shop, until

MINUTE = 60


async def expire(shop: Shop, *orders: int) -> None:
    for order_id in orders:
        await shop.set_order(order_id, expires_at=dialects.now())


async def statuses(shop: Shop, *orders: int) -> list[str]:
    return [(await shop.show(order_id))["status"] for order_id in orders]


# --- reservations -------------------------------------------------------------------------------


async def test_a_reservation_holds_as_long_as_configured(open_shop: OpenShop) -> None:
    shop = await open_shop(reservation_ttl=90)

    order = await shop.show(await shop.created({await shop.product(): 1}))

    created, expires = (datetime.fromisoformat(order[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(seconds=90)


async def test_an_expired_order_cannot_be_confirmed(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.created({product_id: 3})
    await expire(shop, order_id)

    reply = await shop.confirm(order_id)

    refused(reply, 409, "order.expired", "retry_needs_new_key")
    assert await shop.level(product_id) == Level(stock=10, reserved=3)
    assert await shop.discrepancies() == []


async def test_an_order_can_be_confirmed_until_it_expires(shop: Shop) -> None:
    order_id = await shop.created({await shop.product(): 1})
    await shop.set_order(order_id, expires_at=dialects.seconds_from_now(MINUTE))

    reply = await shop.confirm(order_id)

    assert reply.status == 200


async def test_the_stock_of_an_expired_order_is_at_once_available_to_the_next(shop: Shop) -> None:
    repaired = Sample("b2b_transaction_retries_total", error="repaired")
    product_id = await shop.product(stock=10)
    expired = await shop.created({product_id: 8})
    await expire(shop, expired)

    reply = await shop.create({product_id: 10})

    assert reply.status == 201
    assert await shop.level(product_id) == Level(stock=10, reserved=10)
    order = await shop.show(expired)
    assert (order["status"], order["cancel_reason"]) == ("CANCELED", "expired")
    assert order["history"][-1]["reason"] == "expired"
    assert order["history"][-1]["principal"] == "system"
    assert repaired.moved == 1
    assert await shop.discrepancies() == []


async def test_the_stock_of_an_expired_order_can_be_counted_out(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    expired = await shop.created({product_id: 8})
    await expire(shop, expired)

    reply = await shop.adjust_stock(product_id, -10)

    assert (reply.status, reply.json["data"]["available"]) == (200, 0)
    assert await statuses(shop, expired) == ["CANCELED"]
    assert await shop.discrepancies() == []


async def test_a_shortage_that_remains_tells_what_expired_orders_gave_back(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    expired, valid = await shop.created({product_id: 4}), await shop.created({product_id: 5})
    await expire(shop, expired)

    reply = await shop.create({product_id: 6})

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"][0]["available"] == 5
    assert await statuses(shop, expired, valid) == ["CANCELED", "CREATED"]


async def test_only_expired_orders_that_hold_what_is_short_are_canceled(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product(stock=10)
    of_both, of_lamps = await shop.created({desk: 10, lamp: 1}), await shop.created({lamp: 1})
    await expire(shop, of_both, of_lamps)

    await shop.created({desk: 1, lamp: 1})

    assert await statuses(shop, of_both, of_lamps) == ["CANCELED", "CREATED"]
    assert await shop.discrepancies() == []


async def test_stock_that_is_not_short_leaves_expired_orders_to_the_job(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    expired = await shop.created({product_id: 5})
    await expire(shop, expired)

    await shop.created({product_id: 5})

    assert await statuses(shop, expired) == ["CREATED"]


async def test_more_expired_orders_than_a_batch_are_canceled_batch_by_batch(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "EXPIRE_BATCH", 2)
    product_id = await shop.product(stock=5)
    expired = [await shop.created({product_id: 1}) for _ in range(5)]
    await expire(shop, *expired)

    reply = await shop.create({product_id: 5})

    assert reply.status == 201
    assert await statuses(shop, *expired) == 5 * ["CANCELED"]


async def test_many_who_want_the_stock_of_an_expired_order_get_it_once(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    await expire(shop, await shop.created({product_id: 10}))

    replies = await asyncio.gather(*(shop.create({product_id: 1}) for _ in range(20)))

    assert sorted(reply.status for reply in replies) == 10 * [201] + 10 * [409]
    assert await shop.level(product_id) == Level(stock=10, reserved=10)
    assert await shop.discrepancies() == []


async def test_an_expired_order_can_still_be_canceled_by_hand(shop: Shop) -> None:
    order_id = await shop.created({await shop.product(): 1})
    await expire(shop, order_id)

    reply = await shop.cancel(order_id, "Too late")

    assert (reply.status, reply.json["data"]["cancel_reason"]) == (200, "Too late")


# --- the job ------------------------------------------------------------------------------------


async def test_the_job_cancels_every_expired_order_and_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "EXPIRE_BATCH", 2)
    product_id = await shop.product(stock=10)
    expired = [await shop.created({product_id: 1}) for _ in range(3)]
    valid, confirmed = await shop.created({product_id: 1}), await shop.confirmed({product_id: 1})
    await expire(shop, *expired, confirmed)

    canceled = await commands.expire_all(shop.database)

    assert canceled == 3
    assert await statuses(shop, *expired, valid, confirmed) == 3 * ["CANCELED"] + ["CREATED", "CONFIRMED"]
    assert await shop.level(product_id) == Level(stock=9, reserved=1)
    assert await shop.discrepancies() == []


async def test_the_job_finds_nothing_twice(shop: Shop) -> None:
    await expire(shop, await shop.created({await shop.product(): 1}))

    assert [await commands.expire_all(shop.database) for _ in range(2)] == [1, 0]


async def test_the_service_does_the_job_by_itself(open_shop: OpenShop) -> None:
    shop = await open_shop(expire_every=0.05)
    order_id = await shop.created({await shop.product(): 1})

    async def canceled() -> bool:
        return await statuses(shop, order_id) == ["CANCELED"]

    await expire(shop, order_id)

    await until(canceled)


async def test_the_jobs_of_several_replicas_cancel_every_order_once(open_shop: OpenShop) -> None:
    shops = [await open_shop() for _ in range(3)]
    product_id = await shops[0].product(stock=30)
    expired = [await shops[0].created({product_id: 1}) for _ in range(30)]
    await expire(shops[0], *expired)

    canceled = await asyncio.gather(*(commands.expire_all(shop.database) for shop in shops))

    assert sum(canceled) == 30
    assert await shops[0].level(product_id) == Level(stock=30, reserved=0)
    assert await shops[0].discrepancies() == []


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_the_job_does_not_wait_for_orders_that_others_work_on(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    busy, idle = await shop.created({product_id: 1}), await shop.created({product_id: 1})
    await expire(shop, busy, idle)

    async with shop.database.writers.connect() as other:
        await other.execute(text("SELECT id FROM orders WHERE id = :id FOR UPDATE"), {"id": busy})
        canceled = await commands.expire_all(shop.database)

    assert canceled == 1
    assert await statuses(shop, busy, idle) == ["CREATED", "CANCELED"]


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_the_job_does_not_hold_up_new_orders(open_shop: OpenShop) -> None:
    shop = await open_shop(db_lock_timeout=1, db_attempts=1)
    held, other = await shop.product(), await shop.product()
    await expire(shop, await shop.created({held: 1}))

    async def during_the_job(session: AsyncSession) -> Reply:
        assert await commands.expire_orders(session) == 1
        return await shop.create({other: 1})

    reply = await shop.database.transact(during_the_job)

    assert reply.status == 201


# --- the window to cancel -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "window"), [({}, 10 * MINUTE), ({"cancel_window": 2 * MINUTE}, 2 * MINUTE)]
)
async def test_a_confirmed_order_can_be_canceled_within_the_window_and_not_after_it(
    open_shop: OpenShop, settings: dict[str, Any], window: int
) -> None:
    shop = await open_shop(**settings)
    product_id = await shop.product(stock=10)
    in_time, late = await shop.confirmed({product_id: 1}), await shop.confirmed({product_id: 1})
    await shop.set_order(in_time, confirmed_at=dialects.seconds_from_now(30 - window))
    await shop.set_order(late, confirmed_at=dialects.seconds_from_now(-1 - window))

    accepted, denied = await shop.cancel(in_time), await shop.cancel(late)

    assert accepted.status == 200
    refused(denied, 409, "order.cancel_window_closed")
    assert await statuses(shop, in_time, late) == ["CANCELED", "CONFIRMED"]
    assert await shop.level(product_id) == Level(stock=9, reserved=0)
    assert await shop.discrepancies() == []


# --- the clock ----------------------------------------------------------------------------------


async def set_clock(shop: Shop, seconds: int) -> None:
    """Let the clock of the shop's only connection stand so much later than it is."""
    async with shop.database.read() as session:
        await session.execute(text(f"SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + {seconds}"))


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_the_databases_clock_closes_the_window(open_shop: OpenShop) -> None:
    shop = await open_shop(db_pool_size=1)
    product_id = await shop.product()
    first, second = await shop.confirmed({product_id: 1}), await shop.confirmed({product_id: 1})

    await set_clock(shop, 9 * MINUTE)
    in_time = await shop.cancel(first)
    await set_clock(shop, 11 * MINUTE)
    late = await shop.cancel(second)

    assert in_time.status == 200
    refused(late, 409, "order.cancel_window_closed")


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_the_databases_clock_ends_a_reservation(open_shop: OpenShop) -> None:
    shop = await open_shop(db_pool_size=1, reservation_ttl=10 * MINUTE)
    product_id = await shop.product(stock=2)
    first, second = await shop.created({product_id: 1}), await shop.created({product_id: 1})

    await set_clock(shop, 9 * MINUTE)
    in_time = await shop.confirm(first)
    await set_clock(shop, 11 * MINUTE)
    late = await shop.confirm(second)
    next_order = await shop.create({product_id: 1})

    assert in_time.status == 200
    refused(late, 409, "order.expired", "retry_needs_new_key")
    assert next_order.status == 201
    assert (await shop.get(f"{ORDERS}/find-one/{second}")).json["data"]["cancel_reason"] == "expired"
