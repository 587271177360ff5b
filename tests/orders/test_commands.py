"""Commands on lists: every request gets what it would get alone, one after the other."""

from collections.abc import Sequence
from datetime import timedelta

from chassis import dialects
from chassis.errors import Problem
from orders import commands
from orders.commands import Cancellation, NewOrder
from orders.models import Order, Status
from tests.orders.shop import Level, Shop

HOUR = timedelta(hours=1)
WINDOW = timedelta(minutes=10)


async def create(shop: Shop, *requests: tuple[dict[int, int], str | None]) -> list[Order | Problem]:
    wanted = [NewOrder(shop.customer_id, quantities, number, HOUR) for quantities, number in requests]
    return await shop.database.transact(lambda session: commands.create_orders(session, wanted))


async def confirm(shop: Shop, *orders: int) -> list[Order | Problem]:
    return await shop.database.transact(lambda session: commands.confirm_orders(session, orders))


async def cancel(shop: Shop, *orders: int) -> list[Order | Problem]:
    wanted = [Cancellation(order_id, f"reason of {order_id}", WINDOW) for order_id in orders]
    return await shop.database.transact(lambda session: commands.cancel_orders(session, wanted))


def told(outcomes: Sequence[Order | Problem]) -> list[str]:
    """The status of each order, or the code of what refuses it."""
    return [outcome.code if isinstance(outcome, Problem) else str(outcome.status) for outcome in outcomes]


def ids(outcomes: Sequence[Order | Problem]) -> list[int]:
    return [outcome.id for outcome in outcomes if isinstance(outcome, Order)]


async def test_the_first_of_a_list_get_what_there_is(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    outcomes = await create(shop, ({product_id: 6}, None), ({product_id: 5}, None), ({product_id: 4}, None))

    assert told(outcomes) == ["CREATED", "stock.insufficient", "CREATED"]
    assert await shop.level(product_id) == Level(stock=10, reserved=10)
    assert await shop.count(Order) == 2
    assert await shop.discrepancies() == []


async def test_a_refused_order_of_a_list_holds_nothing_back_from_the_others(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product(stock=1)

    outcomes = await create(shop, ({desk: 8, lamp: 2}, None), ({desk: 9, lamp: 1}, None))

    assert told(outcomes) == ["stock.insufficient", "CREATED"]
    assert (await shop.level(desk), await shop.level(lamp)) == (Level(10, 9), Level(1, 1))
    assert await shop.discrepancies() == []


async def test_every_refusal_has_its_place_in_a_list(shop: Shop) -> None:
    product_id, inactive, franc = (
        await shop.product(),
        await shop.product(),
        await shop.product(currency="CHF"),
    )
    await shop.client.patch(f"/admin/products/logic-delete/{inactive}")
    await shop.created({product_id: 1}, purchase_order_number="PO-1")

    outcomes = await create(
        shop,
        ({999_999: 1}, None),
        ({product_id: 1}, "PO-2"),
        ({inactive: 1}, None),
        ({product_id: 1, franc: 1}, None),
        ({product_id: 1}, "PO-1"),
        ({product_id: 1}, "PO-2"),
        ({franc: 1}, None),
    )

    assert told(outcomes) == [
        "product.not_found",
        "CREATED",
        "product.inactive",
        "order.currency_mixed",
        "order.purchase_order_taken",
        "order.purchase_order_taken",
        "CREATED",
    ]
    assert await shop.count(Order) == 3
    assert await shop.discrepancies() == []


async def test_orders_of_a_list_keep_their_own_items_and_numbers(shop: Shop) -> None:
    products = [await shop.product(price_cents=price) for price in (1, 20, 300)]

    outcomes = await create(shop, *(({product: 2}, f"PO-{product}") for product in products))

    shown = [await shop.show(order_id) for order_id in ids(outcomes)]
    assert [order["total_cents"] for order in shown] == [2, 40, 600]
    assert [order["items"][0]["product_id"] for order in shown] == products
    assert [order["purchase_order_number"] for order in shown] == [f"PO-{product}" for product in products]


async def test_a_list_for_expired_stock_begins_again_as_a_whole(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product(stock=10)
    await shop.set_order(await shop.created({desk: 10}), expires_at=dialects.now())

    outcomes = await create(shop, ({lamp: 1}, None), ({desk: 10}, None))

    assert told(outcomes) == ["CREATED", "CREATED"]
    assert (await shop.level(desk), await shop.level(lamp)) == (Level(10, 10), Level(10, 1))
    assert await shop.discrepancies() == []


async def test_a_list_is_confirmed_in_any_order_and_each_order_once(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product(stock=10)
    first, second = await shop.created({desk: 1, lamp: 2}), await shop.created({lamp: 3, desk: 4})
    canceled, expired = await shop.created({desk: 1}), await shop.created({desk: 1})
    await shop.cancel(canceled)
    await shop.set_order(expired, expires_at=dialects.now())

    outcomes = await confirm(shop, second, 999_999, first, canceled, second, expired)

    assert told(outcomes) == [
        "CONFIRMED",
        "order.not_found",
        "CONFIRMED",
        "order.not_confirmable",
        "order.not_confirmable",
        "order.expired",
    ]
    assert ids(outcomes) == [second, first]
    assert (await shop.level(desk), await shop.level(lamp)) == (Level(5, 1), Level(5, 0))
    assert await shop.discrepancies() == []


async def test_a_list_is_canceled_from_whatever_state_each_order_is_in(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    created, confirmed = await shop.created({product_id: 1}), await shop.confirmed({product_id: 2})
    canceled, late = await shop.created({product_id: 3}), await shop.confirmed({product_id: 4})
    await shop.cancel(canceled)
    await shop.set_order(late, confirmed_at=dialects.seconds_from_now(-601))

    outcomes = await cancel(shop, late, confirmed, 999_999, created, canceled, created)

    assert told(outcomes) == [
        "order.cancel_window_closed",
        "CANCELED",
        "order.not_found",
        "CANCELED",
        "CANCELED",
        "CANCELED",
    ]
    reasons = [(await shop.show(order_id))["cancel_reason"] for order_id in (confirmed, created, canceled)]
    assert reasons == [f"reason of {confirmed}", f"reason of {created}", None]
    assert await shop.level(product_id) == Level(stock=6, reserved=0)
    assert await shop.discrepancies() == []


async def test_an_empty_list_does_nothing(shop: Shop) -> None:
    assert [await create(shop), await confirm(shop), await cancel(shop)] == [[], [], []]


async def test_what_a_command_returns_is_what_was_written(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    (created,) = await create(shop, ({product_id: 3}, None))
    assert isinstance(created, Order)
    (confirmed,) = await confirm(shop, created.id)

    assert isinstance(confirmed, Order)
    shown = await shop.show(created.id)
    assert confirmed.status == Status.CONFIRMED == shown["status"]
    assert confirmed.confirmed_at is not None
    assert confirmed.confirmed_at.isoformat(timespec="microseconds") == shown["confirmed_at"].replace(
        "Z", "+00:00"
    )
