"""The rules on one row, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.errors import (
    CancelWindowClosed,
    OrderExpired,
    OrderNotConfirmable,
    Shortage,
    StockInsufficient,
    StockLimit,
)
from orders.models import MAX_STOCK, Delta, Order, OrderItem, Product, Status

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
WINDOW = timedelta(minutes=10)


def a_product(*, stock: int = 10, reserved: int = 0) -> Product:
    return Product(id=1, sku="DESK-OAK", name="Oak desk", stock=stock, reserved=reserved)


def an_order(status: Status = Status.CREATED, **columns: Any) -> Order:
    return Order(id=101, status=status, version=1, expires_at=NOW + timedelta(hours=24), **columns)


def levels(product: Product) -> tuple[int, int]:
    return product.stock, product.reserved


# --- products -----------------------------------------------------------------------------------


def test_a_reservation_takes_from_what_is_available_and_leaves_the_stock() -> None:
    product = a_product()

    delta = product.reserve(3)

    assert levels(product) == (10, 3)
    assert product.available == 7
    assert delta == Delta(stock=0, reserved=3)


def test_a_release_gives_a_reservation_back() -> None:
    product = a_product(reserved=3)

    delta = product.release(3)

    assert levels(product) == (10, 0)
    assert delta == Delta(stock=0, reserved=-3)


def test_a_sale_takes_what_was_reserved_out_of_the_stock() -> None:
    product = a_product(reserved=3)

    delta = product.sell(3)

    assert levels(product) == (7, 0)
    assert delta == Delta(stock=-3, reserved=-3)


def test_what_is_taken_back_is_available_again() -> None:
    product = a_product(stock=7, reserved=2)

    delta = product.take_back(3)

    assert levels(product) == (10, 2)
    assert delta == Delta(stock=3, reserved=0)


def test_the_last_unit_is_no_shortage() -> None:
    assert a_product(stock=10, reserved=7).shortage(3) is None


def test_a_shortage_says_what_was_asked_for_and_what_there_is() -> None:
    assert a_product(stock=10, reserved=7).shortage(4) == Shortage(1, "DESK-OAK", requested=4, available=3)


@pytest.mark.parametrize(("delta", "stock"), [(5, 15), (-7, 3)])
def test_stock_is_counted_in_and_out(delta: int, stock: int) -> None:
    product = a_product(reserved=3)

    counted = product.adjust(delta)

    assert levels(product) == (stock, 3)
    assert counted == Delta(stock=delta, reserved=0)


def test_what_is_reserved_cannot_be_counted_out() -> None:
    product = a_product(reserved=3)

    with pytest.raises(StockInsufficient) as refusal:
        product.adjust(-8)

    assert levels(product) == (10, 3)
    assert refusal.value.members["shortages"] == [
        {"product_id": 1, "sku": "DESK-OAK", "requested": 8, "available": 7}
    ]


def test_stock_is_counted_up_to_a_limit() -> None:
    product = a_product(stock=MAX_STOCK - 1)

    product.adjust(1)
    with pytest.raises(StockLimit):
        product.adjust(1)

    assert product.stock == MAX_STOCK


@given(
    st.integers(0, 50),
    st.lists(
        st.tuples(st.sampled_from(["reserve", "release", "sell", "take_back", "adjust"]), st.integers(1, 9))
    ),
)
def test_whatever_happens_the_deltas_add_up_to_the_levels(first: int, steps: list[tuple[str, int]]) -> None:
    product = a_product(stock=first)
    ledger, sold = [Delta(first, 0)], 0

    for step, qty in steps:
        allowed = {
            "reserve": product.shortage(qty) is None,
            "release": qty <= product.reserved,
            "sell": qty <= product.reserved,
            "take_back": qty <= sold,
            "adjust": product.shortage(qty) is None,
        }
        if allowed[step]:
            ledger.append(product.adjust(-qty) if step == "adjust" else getattr(product, step)(qty))
            sold += {"sell": qty, "take_back": -qty}.get(step, 0)

    assert levels(product) == tuple(map(sum, zip(*ledger, strict=True)))
    assert 0 <= product.reserved <= product.stock


# --- orders -------------------------------------------------------------------------------------


def test_a_created_order_can_be_confirmed() -> None:
    order = an_order()

    order.confirm(NOW)

    assert (order.status, order.confirmed_at, order.version) == (Status.CONFIRMED, NOW, 2)


@pytest.mark.parametrize("status", [Status.CONFIRMED, Status.CANCELED])
def test_no_other_order_can_be_confirmed(status: Status) -> None:
    order = an_order(status)

    with pytest.raises(OrderNotConfirmable) as refusal:
        order.confirm(NOW)

    assert (order.status, order.confirmed_at, order.version) == (status, None, 1)
    assert refusal.value.members == {"order_status": status}


def test_an_order_can_be_confirmed_until_its_reservation_runs_out() -> None:
    order = an_order()

    order.confirm(order.expires_at - MOMENT)

    assert order.status == Status.CONFIRMED


def test_an_expired_order_cannot_be_confirmed() -> None:
    order = an_order()

    with pytest.raises(OrderExpired):
        order.confirm(order.expires_at)

    assert (order.status, order.confirmed_at, order.version) == (Status.CREATED, None, 1)


@pytest.mark.parametrize("status", [Status.CONFIRMED, Status.CANCELED])
def test_only_an_order_that_waits_for_confirmation_expires(status: Status) -> None:
    order = an_order(status)

    assert not order.is_expired(order.expires_at)


def test_a_created_order_can_be_canceled_at_any_time() -> None:
    order = an_order()

    order.cancel(NOW + timedelta(days=365), "Changed our mind", WINDOW)

    assert order.status == Status.CANCELED
    assert order.canceled_at == NOW + timedelta(days=365)
    assert order.cancel_reason == "Changed our mind"
    assert order.version == 2


def test_a_confirmed_order_can_be_canceled_to_the_end_of_the_window() -> None:
    order = an_order(Status.CONFIRMED, confirmed_at=NOW)

    order.cancel(NOW + WINDOW, None, WINDOW)

    assert (order.status, order.canceled_at, order.cancel_reason) == (Status.CANCELED, NOW + WINDOW, None)
    assert order.confirmed_at == NOW


def test_a_confirmed_order_cannot_be_canceled_after_the_window() -> None:
    order = an_order(Status.CONFIRMED, confirmed_at=NOW)

    with pytest.raises(CancelWindowClosed):
        order.cancel(NOW + WINDOW + MOMENT, None, WINDOW)

    assert (order.status, order.canceled_at, order.version) == (Status.CONFIRMED, None, 1)


def test_a_line_costs_its_quantity_times_its_price() -> None:
    assert OrderItem(qty=3, unit_price_cents=129_900).subtotal_cents == 389_700


@pytest.mark.parametrize(("order_id", "number"), [(101, "ORD-00000101"), (1_234_567_890, "ORD-1234567890")])
def test_an_order_number_is_made_of_the_id(order_id: int, number: str) -> None:
    assert Order(id=order_id).order_number == number
