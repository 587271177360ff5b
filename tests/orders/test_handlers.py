"""The orders API over HTTP, on both databases: create, confirm, cancel, find-one and all their refusals."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from orders.models import Order
from tests.client import Client, refused
from tests.observed import Sample
from tests.orders.shop import ORDERS, PRODUCTS, Level, Shop, new_customer

NOBODY = 999_999


# --- create-order -------------------------------------------------------------------------------


async def test_an_order_has_what_the_contract_promises(shop: Shop) -> None:
    desk = await shop.product(sku="DESK-OAK", name="Oak desk", price_cents=129_900)
    lamp = await shop.product(sku="LAMP", name="Lamp", price_cents=4_950)

    reply = await shop.post(
        f"{ORDERS}/create-order",
        {
            "customer_id": shop.customer_id,
            "items": [{"product_id": desk, "qty": 2}, {"product_id": lamp, "qty": 1}],
            "purchase_order_number": "PO-2026-0042",
        },
        headers={"X-Correlation-Id": "req-456"},
    )

    assert reply.status == 201
    order = reply.json["data"]
    assert order == {
        "id": order["id"],
        "order_number": f"ORD-{order['id']:08d}",
        "customer_id": shop.customer_id,
        "status": "CREATED",
        "currency": "USD",
        "total_cents": 264_750,
        "purchase_order_number": "PO-2026-0042",
        "correlation_id": "req-456",
        "created_at": order["created_at"],
        "expires_at": order["expires_at"],
        "confirmed_at": None,
        "canceled_at": None,
        "cancel_reason": None,
        "items": [
            {
                "product_id": desk,
                "sku": "DESK-OAK",
                "name": "Oak desk",
                "qty": 2,
                "unit_price_cents": 129_900,
                "subtotal_cents": 259_800,
            },
            {
                "product_id": lamp,
                "sku": "LAMP",
                "name": "Lamp",
                "qty": 1,
                "unit_price_cents": 4_950,
                "subtotal_cents": 4_950,
            },
        ],
    }
    created, expires = (datetime.fromisoformat(order[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(hours=24)
    assert reply.headers["Location"] == f"{ORDERS}/find-one/{order['id']}"


async def test_times_are_utc_with_microseconds(shop: Shop) -> None:
    order_id = await shop.confirmed({await shop.product(): 1})
    # The one moment whose microseconds would be left out.
    moment = "2026-01-31 10:00:00.000000"
    await shop.sql(
        "UPDATE orders SET created_at = :at, expires_at = :at, confirmed_at = :at, canceled_at = :at",
        at=moment,
    )
    await shop.sql("UPDATE order_events SET at = :at", at=moment)
    await shop.sql("UPDATE products SET created_at = :at, updated_at = :at", at=moment)

    order = await shop.show(order_id)
    product = (await shop.get(f"{PRODUCTS}/find-one/{order['items'][0]['product_id']}")).json["data"]

    moments = [order[name] for name in ("created_at", "expires_at", "confirmed_at", "canceled_at")]
    moments += [event["at"] for event in order["history"]]
    moments += [product["created_at"], product["updated_at"]]
    assert set(moments) == {"2026-01-31T10:00:00.000000Z"}


async def test_creating_an_order_reserves_its_stock(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    order_id = await shop.created({product_id: 3})

    assert await shop.level(product_id) == Level(stock=10, reserved=3)
    assert await shop.ledger(product_id) == [("initial", 10, 0), ("reserve", 0, 3)]
    assert (await shop.show(order_id))["status"] == "CREATED"
    assert await shop.discrepancies() == []


async def test_the_same_product_twice_is_merged(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product()
    lines = [(desk, 2), (lamp, 1), (desk, 3)]

    reply = await shop.create({}, items=[{"product_id": product, "qty": qty} for product, qty in lines])

    assert reply.status == 201
    assert [(item["product_id"], item["qty"]) for item in reply.json["data"]["items"]] == [
        (desk, 5),
        (lamp, 1),
    ]
    assert await shop.level(desk) == Level(stock=10, reserved=5)


async def test_two_lines_that_are_short_together_are_refused(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    reply = await shop.create({}, items=2 * [{"product_id": product_id, "qty": 6}])

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"][0]["requested"] == 12
    assert await shop.level(product_id) == Level(stock=10, reserved=0)


async def test_an_order_keeps_the_name_and_price_it_was_made_with(shop: Shop) -> None:
    product_id = await shop.product(name="Oak desk", price_cents=129_900)
    order_id = await shop.created({product_id: 2})

    await shop.client.patch(f"{PRODUCTS}/update/{product_id}", {"name": "Desk", "price_cents": 1})
    confirmed = (await shop.confirm(order_id)).json["data"]
    later = await shop.show(await shop.created({product_id: 2}))

    assert (confirmed["items"][0]["name"], confirmed["total_cents"]) == ("Oak desk", 259_800)
    assert (await shop.show(order_id))["total_cents"] == 259_800
    assert (later["items"][0]["name"], later["total_cents"]) == ("Desk", 2)


async def test_an_order_of_the_largest_size_fits(shop: Shop) -> None:
    price, qty = 10_000_000_000, 1_000_000
    products = await shop.products(200, price_cents=price, stock=qty)

    reply = await shop.create(dict.fromkeys(products, qty))

    assert reply.status == 201
    order = reply.json["data"]
    assert [item["product_id"] for item in order["items"]] == products
    assert order["total_cents"] == 200 * price * qty
    assert (await shop.confirm(order["id"])).json["data"]["items"] == order["items"]
    assert await shop.discrepancies() == []


async def test_the_callers_correlation_id_is_kept_with_everything_that_is_written(shop: Shop) -> None:
    product_id = await shop.product()
    body = {"customer_id": shop.customer_id, "items": [{"product_id": product_id, "qty": 1}]}
    created = await shop.post(f"{ORDERS}/create-order", body, headers={"X-Correlation-Id": "first"})
    order_id = created.json["data"]["id"]

    confirmed = await shop.post(
        f"{ORDERS}/{order_id}/confirm", key="k", headers={"X-Correlation-Id": "second"}
    )

    order = await shop.show(order_id)
    assert (created.headers["X-Correlation-Id"], confirmed.headers["X-Correlation-Id"]) == ("first", "second")
    assert order["correlation_id"] == "first"
    assert [event["correlation_id"] for event in order["history"]] == ["first", "second"]


async def test_without_a_correlation_id_the_trace_id_is_kept(shop: Shop) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    product_id = await shop.product()
    body = {"customer_id": shop.customer_id, "items": [{"product_id": product_id, "qty": 1}]}

    reply = await shop.post(
        f"{ORDERS}/create-order", body, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    )

    assert reply.json["data"]["correlation_id"] == reply.headers["X-Correlation-Id"] == trace


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"items": []}, ["#/items"]),
        ({"items": None}, ["#/items"]),
        ({"items": [{}]}, ["#/items/0/product_id", "#/items/0/qty"]),
        ({"items": [{"product_id": 1, "qty": 0}]}, ["#/items/0/qty"]),
        ({"items": [{"product_id": 1, "qty": 1_000_001}]}, ["#/items/0/qty"]),
        ({"items": [{"product_id": 1, "qty": "2"}]}, ["#/items/0/qty"]),
        ({"items": [{"product_id": 1, "qty": 1.0}]}, ["#/items/0/qty"]),
        ({"items": [{"product_id": 0, "qty": 1}]}, ["#/items/0/product_id"]),
        ({"items": [{"product_id": 2**63, "qty": 1}]}, ["#/items/0/product_id"]),
        ({"items": [{"product_id": 1, "qty": 1, "price_cents": 1}]}, ["#/items/0/price_cents"]),
        ({"items": 201 * [{"product_id": 1, "qty": 1}]}, ["#/items"]),
        ({"items": 2 * [{"product_id": 1, "qty": 1_000_000}]}, ["#/items"]),
        ({"customer_id": "1"}, ["#/customer_id"]),
        ({"customer_id": None}, ["#/customer_id"]),
        ({"purchase_order_number": ""}, ["#/purchase_order_number"]),
        ({"purchase_order_number": "with space"}, ["#/purchase_order_number"]),
        ({"purchase_order_number": 65 * "9"}, ["#/purchase_order_number"]),
        ({"id": 7, "status": "CONFIRMED"}, ["#/id", "#/status"]),
        ({"total_cents": 1, "currency": "EUR"}, ["#/total_cents", "#/currency"]),
        ({"customer_id": 0, "items": [], "x": 1}, ["#/customer_id", "#/items", "#/x"]),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_order_that_cannot_be_is_refused(shop: Shop, fields: Any, pointers: list[str]) -> None:
    product_id = await shop.product()

    reply = await shop.create({product_id: 1}, **fields)

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert await shop.count(Order) == 0


async def test_all_unknown_products_are_listed(shop: Shop) -> None:
    product_id = await shop.product()

    reply = await shop.create({NOBODY: 1, product_id: 1, NOBODY + 1: 1})

    problem = refused(reply, 404, "product.not_found", "product_ids")
    assert problem["product_ids"] == [NOBODY, NOBODY + 1]
    assert await shop.level(product_id) == Level(stock=10, reserved=0)


async def test_all_products_that_are_not_sold_any_more_are_listed(shop: Shop) -> None:
    products = [await shop.product() for _ in range(3)]
    for product_id in products[:2]:
        await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    reply = await shop.create(dict.fromkeys(products, 1))

    problem = refused(reply, 409, "product.inactive", "product_ids")
    assert problem["product_ids"] == products[:2]
    assert await shop.level(products[2]) == Level(stock=10, reserved=0)


async def test_all_short_lines_are_listed(shop: Shop) -> None:
    desk = await shop.product(sku="DESK", stock=10)
    lamp = await shop.product(sku="LAMP", stock=5)
    stool = await shop.product(sku="STOOL", stock=0)
    await shop.created({lamp: 2})

    reply = await shop.create({stool: 1, desk: 10, lamp: 4})

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"] == [
        {"product_id": stool, "sku": "STOOL", "requested": 1, "available": 0},
        {"product_id": lamp, "sku": "LAMP", "requested": 4, "available": 3},
    ]
    assert await shop.level(desk) == Level(stock=10, reserved=0)
    assert await shop.count(Order) == 1


async def test_an_order_has_one_currency(shop: Shop) -> None:
    euro, dollar = await shop.product(currency="EUR"), await shop.product(currency="USD")

    reply = await shop.create({dollar: 1, euro: 1})

    problem = refused(reply, 409, "order.currency_mixed")
    assert "EUR, USD" in problem["detail"]
    assert (await shop.create({euro: 1})).json["data"]["currency"] == "EUR"


async def test_a_purchase_order_number_is_unique_per_customer(shop: Shop, peer: Client) -> None:
    product_id = await shop.product()
    other = await new_customer(peer)
    order_id = await shop.created({product_id: 1}, purchase_order_number="PO-1")

    again = await shop.create({product_id: 1}, purchase_order_number="PO-1")
    in_other_letters = await shop.create({product_id: 1}, purchase_order_number="po-1")
    of_another = await shop.create({product_id: 1}, purchase_order_number="PO-1", customer_id=other)

    problem = refused(again, 409, "order.purchase_order_taken", "order_id")
    assert problem["order_id"] == order_id
    assert (in_other_letters.status, of_another.status) == (201, 201)
    assert await shop.level(product_id) == Level(stock=10, reserved=3)


async def test_a_purchase_order_number_stays_taken_when_its_order_is_canceled(shop: Shop) -> None:
    product_id = await shop.product()
    await shop.cancel(await shop.created({product_id: 1}, purchase_order_number="PO-1"))

    reply = await shop.create({product_id: 1}, purchase_order_number="PO-1")

    refused(reply, 409, "order.purchase_order_taken", "order_id")


async def test_orders_without_a_purchase_order_number_do_not_get_in_each_others_way(shop: Shop) -> None:
    product_id = await shop.product()

    replies = [await shop.create({product_id: 1}) for _ in range(2)]

    assert [reply.json["data"]["purchase_order_number"] for reply in replies] == [None, None]


async def test_of_many_orders_with_one_purchase_order_number_at_once_one_is_made(shop: Shop) -> None:
    products = [await shop.product() for _ in range(20)]

    replies = await asyncio.gather(
        *(shop.create({product: 1}, purchase_order_number="PO-1") for product in products)
    )

    assert sorted(reply.status for reply in replies) == [201] + 19 * [409]
    (won,) = (reply.json["data"]["id"] for reply in replies if reply.status == 201)
    assert {reply.json["order_id"] for reply in replies if reply.status == 409} == {won}
    assert await shop.count(Order) == 1
    assert await shop.discrepancies() == []


# --- confirm ------------------------------------------------------------------------------------


async def test_a_confirmation_turns_the_reservation_into_a_sale(shop: Shop) -> None:
    desk, lamp = await shop.product(stock=10), await shop.product(stock=1)
    created = await shop.show(await shop.created({desk: 3, lamp: 1}))

    reply = await shop.confirm(created["id"])

    assert reply.status == 200
    order = reply.json["data"]
    del created["history"]
    assert order == created | {"status": "CONFIRMED", "confirmed_at": order["confirmed_at"]}
    assert created["created_at"] <= order["confirmed_at"] < created["expires_at"]
    assert await shop.level(desk) == Level(stock=7, reserved=0)
    assert await shop.level(lamp) == Level(stock=0, reserved=0)
    assert await shop.ledger(desk) == [("initial", 10, 0), ("reserve", 0, 3), ("sale", -3, -3)]
    assert await shop.discrepancies() == []


async def test_a_confirmation_needs_a_key(shop: Shop) -> None:
    order_id = await shop.created({await shop.product(): 1})

    reply = await shop.post(f"{ORDERS}/{order_id}/confirm")

    refused(reply, 400, "idempotency.key_missing")
    assert (await shop.show(order_id))["status"] == "CREATED"


async def test_an_order_is_confirmed_once(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.confirmed({product_id: 3})

    reply = await shop.confirm(order_id)

    problem = refused(reply, 409, "order.not_confirmable", "order_status", "retry_needs_new_key")
    assert problem["order_status"] == "CONFIRMED"
    assert await shop.level(product_id) == Level(stock=7, reserved=0)


async def test_a_canceled_order_cannot_be_confirmed(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.created({product_id: 3})
    await shop.cancel(order_id)

    reply = await shop.confirm(order_id)

    problem = refused(reply, 409, "order.not_confirmable", "order_status", "retry_needs_new_key")
    assert problem["order_status"] == "CANCELED"
    assert await shop.level(product_id) == Level(stock=10, reserved=0)


async def test_what_is_sold_is_counted(shop: Shop) -> None:
    confirmed = Sample("b2b_orders_total", outcome="confirmed", reason="")
    value = Sample("b2b_order_value_cents_total", currency="CHF")
    short = Sample("b2b_orders_total", outcome="refused", reason="stock.insufficient")
    conflicts = Sample("b2b_stock_conflicts_total")
    product_id = await shop.product(stock=10, price_cents=500, currency="CHF")

    await shop.confirmed({product_id: 3})
    await shop.create({product_id: 8})

    assert (confirmed.moved, value.moved, short.moved, conflicts.moved) == (1, 1500, 1, 1)


# --- cancel -------------------------------------------------------------------------------------


async def test_canceling_a_created_order_releases_its_stock(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    created = await shop.show(await shop.created({product_id: 3}))

    reply = await shop.cancel(created["id"], "Changed our mind")

    assert reply.status == 200
    order = reply.json["data"]
    del created["history"]
    assert order == created | {
        "status": "CANCELED",
        "canceled_at": order["canceled_at"],
        "cancel_reason": "Changed our mind",
    }
    assert await shop.level(product_id) == Level(stock=10, reserved=0)
    assert await shop.ledger(product_id) == [("initial", 10, 0), ("reserve", 0, 3), ("release", 0, -3)]
    assert await shop.discrepancies() == []


async def test_canceling_a_confirmed_order_returns_its_stock(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.confirmed({product_id: 3})

    reply = await shop.cancel(order_id)

    assert (reply.status, reply.json["data"]["status"]) == (200, "CANCELED")
    assert reply.json["data"]["confirmed_at"] is not None
    assert await shop.level(product_id) == Level(stock=10, reserved=0)
    assert (await shop.ledger(product_id))[-1] == ("return", 3, 0)
    assert await shop.discrepancies() == []


async def test_canceling_again_changes_nothing(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.created({product_id: 3})
    first = await shop.cancel(order_id, "Changed our mind")

    again = await shop.cancel(order_id, "Another reason")

    assert (again.status, again.body) == (200, first.body)
    assert await shop.level(product_id) == Level(stock=10, reserved=0)
    assert len((await shop.show(order_id))["history"]) == 2


@pytest.mark.parametrize("reason", ["🪑 zurück, «sofort» \\ \"quoted\" 'single' %s :x", "é" * 200, "null"])
async def test_a_reason_is_kept_to_the_letter(shop: Shop, reason: str) -> None:
    order_id = await shop.created({await shop.product(): 1})

    reply = await shop.cancel(order_id, reason)

    order = await shop.show(order_id)
    assert reply.json["data"]["cancel_reason"] == order["cancel_reason"] == reason
    assert order["history"][-1]["reason"] == reason


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"reason": ""}, "#/reason"), ({"reason": "R" * 201}, "#/reason"), ({"status": "CREATED"}, "#/status")],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_cancellation_that_cannot_be_is_refused(shop: Shop, body: Any, pointer: str) -> None:
    order_id = await shop.created({await shop.product(): 1})

    reply = await shop.post(f"{ORDERS}/{order_id}/cancel", body)

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert (await shop.show(order_id))["status"] == "CREATED"


# --- find-one -----------------------------------------------------------------------------------


async def test_an_order_tells_its_history(shop: Shop) -> None:
    order_id = await shop.confirmed({await shop.product(): 1})
    await shop.cancel(order_id, "Changed our mind")

    order = await shop.show(order_id)

    steps = [(event["from_status"], event["to_status"], event["reason"]) for event in order["history"]]
    assert steps == [
        (None, "CREATED", None),
        ("CREATED", "CONFIRMED", None),
        ("CONFIRMED", "CANCELED", "Changed our mind"),
    ]
    moments = [order["created_at"], order["confirmed_at"], order["canceled_at"]]
    assert [event["at"] for event in order["history"]] == moments


async def test_the_etag_of_an_order_changes_with_every_step(shop: Shop) -> None:
    product_id = await shop.product()
    created = await shop.create({product_id: 1})
    path = created.headers["Location"]
    confirmed = await shop.confirm(created.json["data"]["id"])

    shown = await shop.get(path)
    unchanged = await shop.get(path, headers={"If-None-Match": confirmed.headers["ETag"]})
    changed = await shop.get(path, headers={"If-None-Match": created.headers["ETag"]})

    assert shown.headers["ETag"] == confirmed.headers["ETag"] != created.headers["ETag"]
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (changed.status, changed.body) == (200, shown.body)


@pytest.mark.parametrize(
    ("method", "path", "members"),
    [
        ("GET", f"{ORDERS}/find-one/{NOBODY}", []),
        ("POST", f"{ORDERS}/{NOBODY}/confirm", ["retry_needs_new_key"]),
        ("POST", f"{ORDERS}/{NOBODY}/cancel", ["retry_needs_new_key"]),
    ],
)
async def test_what_is_not_there_is_a_404(shop: Shop, method: str, path: str, members: list[str]) -> None:
    headers = {"Idempotency-Key": "k"} if method == "POST" else {}

    reply = await shop.client.request(method, path, headers=headers)

    refused(reply, 404, "order.not_found", *members)


@pytest.mark.parametrize("given", ["0", "-1", "abc", "1.0", "9223372036854775808"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_id_is_a_positive_64_bit_integer(shop: Shop, given: str) -> None:
    replies = [
        await shop.get(f"{ORDERS}/find-one/{given}"),
        await shop.post(f"{ORDERS}/{given}/confirm", key="k"),
        await shop.post(f"{ORDERS}/{given}/cancel"),
    ]

    for reply in replies:
        problem = refused(reply, 400, "request.invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["path:order_id"]
