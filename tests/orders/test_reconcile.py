"""Reconcile finds nothing in what the service did, and each thing that somebody else did."""

import pytest

from orders import reconcile
from tests.orders.shop import Shop


@pytest.fixture
async def traded(shop: Shop) -> Shop:
    """A shop with product 1 and an order in every state: 1 created, 2 confirmed, 3 and 4 canceled."""
    product_id = await shop.product(stock=20, price_cents=500)
    await shop.created({product_id: 1})
    await shop.confirmed({product_id: 2})
    await shop.cancel(await shop.created({product_id: 3}))
    await shop.cancel(await shop.confirmed({product_id: 4}))
    await shop.adjust_stock(product_id, 5)
    return shop


async def rows(shop: Shop) -> tuple[int, dict[str, int]]:
    """The id of the product, and of an order in each state."""
    products = (await shop.get("/admin/products/find-all")).json["data"]
    orders = (await shop.get("/admin/orders/find-all")).json["data"]
    return products[0]["id"], {order["status"]: order["id"] for order in orders}


async def test_what_the_service_did_is_in_order(traded: Shop) -> None:
    assert await traded.discrepancies() == []


async def test_an_empty_database_is_in_order(shop: Shop) -> None:
    assert await shop.discrepancies() == []


async def test_stock_that_no_movement_explains_is_found(traded: Shop) -> None:
    product, _ = await rows(traded)

    await traded.sql("UPDATE products SET stock = stock + 1")

    assert await traded.discrepancies() == [
        f"product {product}: stock 24, by ledger 23; reserved 1, by ledger 1"
    ]


async def test_a_reservation_that_no_order_holds_is_found(traded: Shop) -> None:
    product, _ = await rows(traded)

    await traded.sql("UPDATE products SET reserved = reserved + 1")

    assert await traded.discrepancies() == [
        f"product {product}: stock 23, by ledger 23; reserved 2, by ledger 1",
        f"product {product}: reserved 2, its created orders hold 1",
    ]


async def test_a_movement_that_is_gone_is_found(traded: Shop) -> None:
    product, orders = await rows(traded)

    await traded.sql(
        "DELETE FROM stock_movements WHERE kind = 'sale' AND order_id = :id", id=orders["CONFIRMED"]
    )

    assert await traded.discrepancies() == [
        f"product {product}: stock 23, by ledger 25; reserved 1, by ledger 3",
        f"order {orders['CONFIRMED']} (CONFIRMED): 2 of product {product}, moved stock 0, reserved 2",
    ]


async def test_a_unit_that_is_sold_twice_is_found_although_the_ledger_agrees(traded: Shop) -> None:
    product, orders = await rows(traded)

    await traded.sql(
        "INSERT INTO stock_movements "
        "(product_id, order_id, kind, stock_delta, reserved_delta, correlation_id, at) "
        "SELECT product_id, order_id, kind, stock_delta, 0, correlation_id, at FROM stock_movements "
        "WHERE kind = 'sale' AND order_id = :id",
        id=orders["CONFIRMED"],
    )
    await traded.sql("UPDATE products SET stock = stock - 2")

    assert await traded.discrepancies() == [
        f"order {orders['CONFIRMED']} (CONFIRMED): 2 of product {product}, moved stock -4, reserved 0"
    ]


async def test_an_order_whose_status_was_changed_is_found(traded: Shop) -> None:
    product, orders = await rows(traded)

    await traded.sql("UPDATE orders SET status = 'CANCELED' WHERE id = :id", id=orders["CREATED"])

    assert await traded.discrepancies() == [
        f"product {product}: reserved 1, its created orders hold 0",
        f"order {orders['CREATED']} (CANCELED): 1 of product {product}, moved stock 0, reserved 1",
        f"order {orders['CREATED']}: CANCELED, its last event leads to CREATED",
    ]


async def test_an_order_without_movements_is_found(traded: Shop) -> None:
    product, orders = await rows(traded)

    await traded.sql("DELETE FROM stock_movements WHERE order_id = :id", id=orders["CREATED"])

    assert (
        f"order {orders['CREATED']} (CREATED): 1 of product {product}, moved stock None, reserved None"
        in (await traded.discrepancies())
    )


async def test_a_total_that_is_not_the_sum_of_its_items_is_found(traded: Shop) -> None:
    _, orders = await rows(traded)

    await traded.sql("UPDATE orders SET total_cents = 999 WHERE id = :id", id=orders["CONFIRMED"])

    assert await traded.discrepancies() == [
        f"order {orders['CONFIRMED']}: total 999 cents, its items add up to 1000"
    ]


async def test_an_order_without_a_history_is_found(traded: Shop) -> None:
    _, orders = await rows(traded)

    await traded.sql("DELETE FROM order_events WHERE order_id = :id", id=orders["CREATED"])

    assert await traded.discrepancies() == [
        f"order {orders['CREATED']}: CREATED, its last event leads to None"
    ]


async def test_of_each_kind_only_so_many_are_listed(traded: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "ROWS_SHOWN", 3)

    await traded.sql("UPDATE orders SET total_cents = total_cents + 1")

    assert len(await traded.discrepancies()) == 3
