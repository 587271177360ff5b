"""The API as its callers meet it; what depends on the database is in the other files, on both."""

from typing import Any

import pytest
from aiohttp import web

from chassis import failpoints
from orchestrator.answers import JOB_PATH
from orchestrator.failpoints import REQUEST_PARSED
from tests.client import Reply, refused
from tests.orchestrator.shop import Replica, Shop, ended_by
from tests.orchestrator.wire import PassOn, answers

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

REQUEST_MEMBERS = ("success", "step", "compensated", "retry_needs_new_key")
"""What the problems of the main job have beside the usual members when there is no saga."""


def refused_request(reply: Reply, status: int, code: str) -> Any:
    """Assert that the request was refused before there was a saga; return the problem."""
    problem = refused(reply, status, code, *REQUEST_MEMBERS)
    assert (problem["success"], problem["step"], problem["compensated"]) == (False, None, False)
    return problem


# --- the main job -------------------------------------------------------------------------------


async def test_the_main_job_answers_with_the_customer_and_the_confirmed_order(
    shop: Shop, orchestrator: Replica
) -> None:
    customer = await shop.customer(name="ACME Corporation", email="OPS@acme.com", phone="+1234567890")
    desk = await shop.product(sku="DESK-OAK", name="Oak desk", price_cents=129900)
    body = {
        "customer_id": customer["id"],
        "items": [{"product_id": desk["id"], "qty": 2}],
        "idempotency_key": "unique-key-123",
        "correlation_id": "req-456",
    }

    reply = await orchestrator.job(body, key=None)

    assert reply.status == 201, reply.text
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Idempotent-Replayed" not in reply.headers
    order = await shop.only_order()
    saga = await orchestrator.only_saga()
    assert reply.headers["Location"] == f"/orchestrator/sagas/{saga['id']}"
    assert reply.json == {
        "success": True,
        "correlation_id": "req-456",
        "saga_id": saga["id"],
        "data": {
            "customer": {
                "id": customer["id"],
                "name": "ACME Corporation",
                "email": "ops@acme.com",
                "phone": "+1234567890",
            },
            "order": {
                "id": order["id"],
                "order_number": order["order_number"],
                "status": "CONFIRMED",
                "currency": "USD",
                "total_cents": 259800,
                "items": [
                    {
                        "product_id": desk["id"],
                        "sku": "DESK-OAK",
                        "name": "Oak desk",
                        "qty": 2,
                        "unit_price_cents": 129900,
                        "subtotal_cents": 259800,
                    }
                ],
                "created_at": order["created_at"],
                "confirmed_at": order["confirmed_at"],
            },
        },
    }


async def test_the_main_job_sells_the_stock(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket(qty=3, stock=10)

    reply = await orchestrator.job(body)

    assert reply.status == 201
    assert await shop.stock(body) == (7, 0)


async def test_the_purchase_order_number_is_passed_on(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "purchase_order_number": "PO-2026-0042"}

    await orchestrator.job(body)

    assert (await shop.only_order())["purchase_order_number"] == "PO-2026-0042"


async def test_lines_of_one_product_are_merged(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket(qty=2)
    body["items"] *= 3

    reply = await orchestrator.job(body)

    (item,) = reply.json["data"]["order"]["items"]
    assert item["qty"] == 6


# --- correlation ids ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_header", "in_body", "expected"),
    [
        ("req-1", None, "req-1"),
        (None, "req-2", "req-2"),
        ("req-1", "req-2", "req-1"),
    ],
)
async def test_the_correlation_id_is_returned_and_stored_with_the_saga_and_the_order(
    shop: Shop, orchestrator: Replica, in_header: str | None, in_body: str | None, expected: str
) -> None:
    body = {**await shop.basket(), "correlation_id": in_body}
    headers = {} if in_header is None else {"X_Correlation_Id": in_header}

    reply = await orchestrator.job(body, **headers)

    assert reply.json["correlation_id"] == reply.headers["X-Correlation-Id"] == expected
    assert (await orchestrator.only_saga())["correlation_id"] == expected
    assert (await shop.only_order())["correlation_id"] == expected


async def test_without_a_correlation_id_the_trace_id_is_taken(shop: Shop, orchestrator: Replica) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    reply = await orchestrator.job(await shop.basket(), traceparent=f"00-{trace_id}-b7ad6b7169203331-00")

    assert reply.json["correlation_id"] == reply.headers["X-Correlation-Id"] == trace_id
    assert (await shop.only_order())["correlation_id"] == trace_id


async def test_a_refusal_has_the_correlation_id_of_the_body(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "customer_id": 999, "correlation_id": "req-456"}

    reply = await orchestrator.job(body)

    assert reply.json["correlation_id"] == reply.headers["X-Correlation-Id"] == "req-456"


async def test_a_body_that_is_not_valid_is_refused_with_its_correlation_id(orchestrator: Replica) -> None:
    reply = await orchestrator.job({"items": [], "correlation_id": "req-456"})

    assert refused_request(reply, 400, "request.invalid")["correlation_id"] == "req-456"


async def test_a_request_without_a_key_is_refused_with_its_correlation_id(
    shop: Shop, orchestrator: Replica
) -> None:
    reply = await orchestrator.job({**await shop.basket(), "correlation_id": "req-456"}, key=None)

    assert refused_request(reply, 400, "idempotency.key_missing")["correlation_id"] == "req-456"


async def test_a_correlation_id_that_cannot_be_is_refused_like_every_other_request(
    shop: Shop, orchestrator: Replica
) -> None:
    reply = await orchestrator.job(await shop.basket(), X_Correlation_Id="two words")

    problem = refused_request(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["header:X-Correlation-Id"]


async def test_a_failure_that_nobody_foresaw_says_that_the_job_did_not_succeed(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    failpoints.arm(f"{REQUEST_PARSED.name}=raise")
    try:
        reply = await orchestrator.job(body)
    finally:
        failpoints.arm("")

    refused_request(reply, 500, "internal.error")


# --- refusals of the peers ----------------------------------------------------------------------


async def test_a_customer_that_does_not_exist(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "customer_id": 999}

    reply = await orchestrator.job(body)

    ended_by(reply, 404, "customer.not_found", step="validate_customer")
    assert await shop.all_orders() == []


async def test_a_customer_that_may_not_order(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    await shop.customers.patch(f"/admin/customers/logic-delete/{body['customer_id']}")

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "customer.inactive", step="validate_customer")
    assert await shop.all_orders() == []


async def test_a_customer_that_may_not_order_any_more_when_the_order_is_created(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()

    async def deactivated_meanwhile(_request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        await shop.customers.patch(f"/admin/customers/logic-delete/{body['customer_id']}")
        return await pass_on()

    shop.to_orders.breaks("/create-order", deactivated_meanwhile)

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "customer.inactive", step="create_order")


async def test_products_that_do_not_exist_are_all_listed(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    body["items"] += [{"product_id": 998, "qty": 1}, {"product_id": 999, "qty": 1}]

    reply = await orchestrator.job(body)

    ended_by(reply, 404, "product.not_found", step="create_order", product_ids=[998, 999])
    assert await shop.stock(body) == (10, 0)


async def test_products_that_are_not_sold_any_more_are_all_listed(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    product_id = body["items"][0]["product_id"]
    await shop.orders.patch(f"/admin/products/logic-delete/{product_id}")

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "product.inactive", step="create_order", product_ids=[product_id])


async def test_products_in_different_currencies(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket(currency="USD")
    body["items"].append({"product_id": (await shop.product(currency="EUR"))["id"], "qty": 1})

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "order.currency_mixed", step="create_order")


async def test_a_purchase_order_that_was_ordered_before(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "purchase_order_number": "PO-1"}
    first = await orchestrator.job(body, key="key-1")

    reply = await orchestrator.job(body, key="key-2")

    order_id = first.json["data"]["order"]["id"]
    ended_by(reply, 409, "order.purchase_order_taken", step="create_order", order_id=order_id)


async def test_a_shortage_lists_every_short_line(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket(qty=11, sku="DESK-OAK", stock=10)
    lamp = await shop.product(sku="LAMP-LED", stock=0)
    chair = await shop.product(sku="CHAIR-ERGO", stock=5)
    body["items"] += [{"product_id": lamp["id"], "qty": 1}, {"product_id": chair["id"], "qty": 5}]

    reply = await orchestrator.job(body)

    desk_id = body["items"][0]["product_id"]
    shortages = [
        {"product_id": desk_id, "sku": "DESK-OAK", "requested": 11, "available": 10},
        {"product_id": lamp["id"], "sku": "LAMP-LED", "requested": 1, "available": 0},
    ]
    ended_by(reply, 409, "stock.insufficient", step="create_order", shortages=shortages)
    assert await shop.stock(body) == (10, 0)


async def test_the_words_of_a_peer_are_not_passed_on(shop: Shop, orchestrator: Replica) -> None:
    secret = {"code": "order.on_tuesdays_only", "title": "SELECT 1", "detail": "SELECT 2", "note": "SELECT 3"}
    shop.to_orders.breaks("/create-order", answers(422, secret))

    reply = await orchestrator.job(await shop.basket())

    ended_by(reply, 409, "saga.refused", step="create_order")
    assert "SELECT" not in reply.text
    saga = await orchestrator.only_saga()
    assert saga["refusal"] == {"code": "order.on_tuesdays_only", "members": {}, "step": "create_order"}
    assert saga["steps"][-1]["code"] == "order.on_tuesdays_only"


# --- what is no main job ------------------------------------------------------------------------


async def test_everything_wrong_with_a_body_is_listed_at_once(orchestrator: Replica) -> None:
    body = {
        "customer_id": "1",
        "items": [{"product_id": 0, "qty": 0}, {"qty": 1_000_001, "price_cents": 1}],
        "correlation_id": "two words",
        "purchase_order_number": "",
        "total_cents": 1,
    }

    reply = await orchestrator.job(body)

    problem = refused_request(reply, 400, "request.invalid")
    assert {error["pointer"] for error in problem["errors"]} == {
        "#/customer_id",
        "#/items/0/product_id",
        "#/items/0/qty",
        "#/items/1/product_id",
        "#/items/1/qty",
        "#/items/1/price_cents",
        "#/correlation_id",
        "#/purchase_order_number",
        "#/total_cents",
    }
    assert problem["retryable"] is False


@pytest.mark.parametrize(
    ("items", "pointer"),
    [
        ([], "#/items"),
        (None, "#/items"),
        ([{"product_id": 1, "qty": 1}] * 201, "#/items"),
        ([{"product_id": 1, "qty": 600_000}] * 2, "#/items"),
        ([{"product_id": 1, "qty": 1.5}], "#/items/0/qty"),
        ([{"product_id": 1, "qty": "1"}], "#/items/0/qty"),
        ([{"product_id": 2**63, "qty": 1}], "#/items/0/product_id"),
    ],
)
async def test_items_that_are_none_are_refused(orchestrator: Replica, items: Any, pointer: str) -> None:
    reply = await orchestrator.job({"customer_id": 1, "items": items})

    problem = refused_request(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


async def test_what_is_invalid_starts_no_saga_and_asks_no_peer(shop: Shop, orchestrator: Replica) -> None:
    await orchestrator.job({"customer_id": 1, "items": []})
    await orchestrator.job(await shop.basket(), key=None)

    assert (await orchestrator.client.get("/orchestrator/sagas")).json["data"] == []
    assert shop.to_customers.calls == shop.to_orders.calls == []


async def test_a_key_is_required(shop: Shop, orchestrator: Replica) -> None:
    reply = await orchestrator.job(await shop.basket(), key=None)

    refused_request(reply, 400, "idempotency.key_missing")


async def test_two_keys_that_differ_are_refused(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "idempotency_key": "key-3"}

    reply = await orchestrator.job(body, key="key-1", X_Idempotency_Key="key-2")

    problem = refused_request(reply, 400, "idempotency.key_invalid")
    assert [error["pointer"] for error in problem["errors"]] == [
        "header:Idempotency-Key",
        "header:X-Idempotency-Key",
        "#/idempotency_key",
    ]


@pytest.mark.parametrize("key", ["x" * 256, "two words", "ümlaut", ""])
async def test_a_key_in_the_body_is_visible_ascii(shop: Shop, orchestrator: Replica, key: str) -> None:
    body = {**await shop.basket(), "idempotency_key": key}

    reply = await orchestrator.job(body, key=None)

    problem = refused_request(reply, 400, "idempotency.key_invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["#/idempotency_key"]


async def test_the_main_job_is_posted(orchestrator: Replica) -> None:
    reply = await orchestrator.client.get(JOB_PATH)

    refused(reply, 405, "route.method_not_allowed")
    assert reply.headers["Allow"] == "POST"
