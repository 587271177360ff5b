"""What goes over the wire, without a wire."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orders.schemas import MAX_ITEMS, MAX_QTY, CreateOrder, FindOrders

LINES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 100)), min_size=1, max_size=MAX_ITEMS)


def an_order_of(lines: list[tuple[int, int]]) -> CreateOrder:
    items = [{"product_id": product_id, "qty": qty} for product_id, qty in lines]
    return CreateOrder.model_validate({"customer_id": 1, "items": items})


def wrong(lines: list[tuple[int, int]]) -> list[tuple[Any, ...]]:
    """Where the errors of such an order point to."""
    with pytest.raises(ValidationError) as error:
        an_order_of(lines)
    return [item["loc"] for item in error.value.errors()]


def the_filter(**given: str) -> FindOrders:
    return FindOrders.model_validate_strings(given, strict=False)


# --- items --------------------------------------------------------------------------------------


def test_the_same_product_twice_is_one_line() -> None:
    body = an_order_of([(7, 2), (3, 1), (7, 5)])

    assert body.quantities() == {7: 7, 3: 1}


@given(LINES)
def test_merging_loses_no_unit_and_keeps_the_order_of_the_lines(lines: list[tuple[int, int]]) -> None:
    quantities = an_order_of(lines).quantities()

    assert list(quantities) == list(dict.fromkeys(product_id for product_id, _ in lines))
    assert sum(quantities.values()) == sum(qty for _, qty in lines)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(2, 100)), min_size=1, max_size=MAX_ITEMS // 2))
def test_an_order_with_its_lines_split_in_two_is_the_same_order(lines: list[tuple[int, int]]) -> None:
    split = [(product_id, part) for product_id, qty in lines for part in (1, qty - 1)]

    assert an_order_of(split) == an_order_of(lines)


def test_an_order_has_between_1_and_200_lines() -> None:
    assert len(an_order_of([(number, 1) for number in range(1, 201)]).items) == 200
    assert wrong([]) == [("items",)]
    assert wrong([(number, 1) for number in range(1, 202)]) == [("items",)]


def test_a_line_has_between_1_and_1_000_000_units() -> None:
    assert an_order_of([(1, MAX_QTY)]).quantities() == {1: 1_000_000}
    assert wrong([(1, 0), (2, -1), (3, MAX_QTY + 1)]) == [("items", line, "qty") for line in range(3)]


def test_the_limit_of_a_line_holds_for_the_lines_of_a_product_together() -> None:
    assert an_order_of([(1, MAX_QTY - 1), (1, 1)]).quantities() == {1: 1_000_000}
    assert wrong([(1, MAX_QTY), (2, 1), (1, 1)]) == [("items",)]


# --- times --------------------------------------------------------------------------------------


def test_a_date_as_from_begins_with_its_day() -> None:
    assert the_filter(**{"from": "2026-01-31"}).from_ == datetime(2026, 1, 31, tzinfo=UTC)


def test_a_date_as_to_ends_with_its_day() -> None:
    assert the_filter(to="2026-01-31").to == datetime(2026, 2, 1, tzinfo=UTC)


def test_a_time_as_to_includes_its_microsecond() -> None:
    found = the_filter(to="2026-01-31T10:00:00.000001Z").to

    assert found == datetime(2026, 1, 31, 10, 0, 0, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "given",
    ["2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00", "2026-01-31T05:30-04:30"],
)
def test_a_time_is_taken_in_its_zone_and_in_utc_without_one(given: str) -> None:
    assert the_filter(**{"from": given}).from_ == datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "given", ["", "yesterday", "2026-02-30", "31.01.2026", "1769853600", "2026-01-31T25:00:00Z"]
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_what_is_no_time_is_refused(name: str, given: str) -> None:
    with pytest.raises(ValidationError, match="Input should be a date or an RFC 3339 time"):
        the_filter(**{name: given})


def test_the_last_day_there_is_has_no_end() -> None:
    with pytest.raises(ValidationError, match="Input should be a date or an RFC 3339 time"):
        the_filter(to="9999-12-31")
