"""Idempotency keys on everything that takes one: create, confirm, cancel, adjust-stock; on both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import update

from chassis import dialects
from chassis.idempotency import KEYS
from orders.models import IdempotencyKey, Order
from tests.client import Reply, refused
from tests.observed import Sample
from tests.orders.shop import CUT_OFF, ORDERS, PRODUCTS, Level, OpenShop, Shop

NOBODY = 999_999


@dataclass(frozen=True, slots=True)
class Operation:
    """A request, another one of the same kind, and one that cannot be read."""

    status: int
    path: str
    body: Any
    other_path: str
    other_body: Any
    bad_path: str
    bad_body: Any


async def create(shop: Shop) -> Operation:
    product_id = await shop.product(stock=10)
    bodies = [
        {"customer_id": shop.customer_id, "items": [{"product_id": product_id, "qty": qty}]}
        for qty in (3, 2, 0)
    ]
    path = f"{ORDERS}/create-order"
    return Operation(201, path, bodies[0], path, bodies[1], path, bodies[2])


async def confirm(shop: Shop) -> Operation:
    product_id = await shop.product(stock=10)
    path, other = [f"{ORDERS}/{await shop.created({product_id: 3})}/confirm" for _ in range(2)]
    return Operation(200, path, None, other, None, f"{ORDERS}/first/confirm", None)


async def cancel(shop: Shop) -> Operation:
    path = f"{ORDERS}/{await shop.confirmed({await shop.product(stock=10): 3})}/cancel"
    return Operation(200, path, {"reason": "One"}, path, {"reason": "Other"}, path, {"reason": ""})


async def adjust(shop: Shop) -> Operation:
    path = f"{PRODUCTS}/{await shop.product(stock=10)}/adjust-stock"
    bodies = [{"delta": delta, "reason": "Counted again"} for delta in (-3, -2, 0)]
    return Operation(200, path, bodies[0], path, bodies[1], path, bodies[2])


@pytest.fixture(params=[create, confirm, cancel, adjust], ids=lambda prepare: prepare.__name__)
async def operation(request: pytest.FixtureRequest, shop: Shop) -> Operation:
    """Each of the operations in turn, on a database where it can be done."""
    prepare: Callable[[Shop], Awaitable[Operation]] = request.param
    return await prepare(shop)


async def state(shop: Shop) -> tuple[list[Any], list[Any]]:
    """Everything that an operation could have changed."""
    products = (await shop.get(f"{PRODUCTS}/find-all")).json["data"]
    return products, (await shop.get(f"{ORDERS}/find-all")).json["data"]


def is_replay(reply: Reply, of: Reply) -> bool:
    """Whether it is the same answer, marked as given again."""
    same = ("Content-Type", "Location", "ETag")
    return (
        (reply.status, reply.body) == (of.status, of.body)
        and [reply.headers.get(name) for name in same] == [of.headers.get(name) for name in same]
        and reply.headers.get("Idempotent-Replayed") == "true"
    )


# --- the same request ---------------------------------------------------------------------------


async def test_a_request_repeated_with_its_key_gets_its_first_answer(
    shop: Shop, operation: Operation
) -> None:
    replayed = Sample("b2b_idempotency_total", service="orders", result="replayed")
    first = await shop.post(operation.path, operation.body, key="key-1")
    after_first = await state(shop)

    again = [await shop.post(operation.path, operation.body, key="key-1") for _ in range(2)]

    assert first.status == operation.status, first.text
    assert "Idempotent-Replayed" not in first.headers
    assert all(is_replay(reply, of=first) for reply in again)
    assert await state(shop) == after_first
    assert await shop.discrepancies() == []
    assert replayed.moved == 2


async def test_twins_in_flight_have_one_effect_and_one_answer(shop: Shop, operation: Operation) -> None:
    replies = await asyncio.gather(
        *(shop.post(operation.path, operation.body, key="key-1") for _ in range(10))
    )

    (first,) = (reply for reply in replies if "Idempotent-Replayed" not in reply.headers)
    assert first.status == operation.status
    assert sum(is_replay(reply, of=first) for reply in replies) == 9
    after = await state(shop)
    assert is_replay(await shop.post(operation.path, operation.body, key="key-1"), of=first)
    assert await state(shop) == after
    assert await shop.discrepancies() == []


async def test_twins_in_several_replicas_have_one_effect_and_one_answer(open_shop: OpenShop) -> None:
    shop = await open_shop(replicas=2)
    product_id = await shop.product(stock=100)

    replies = await asyncio.gather(*(shop.create({product_id: 3}, key="key-1") for _ in range(20)))

    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert await shop.count(Order) == 1
    assert await shop.level(product_id) == Level(stock=100, reserved=3)


async def test_without_a_key_every_request_is_one_of_its_own(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    replies = [await shop.create({product_id: 3}) for _ in range(2)]

    assert [reply.status for reply in replies] == [201, 201]
    assert await shop.level(product_id) == Level(stock=10, reserved=6)
    assert await shop.count(IdempotencyKey) == 0


async def test_an_order_with_its_lines_written_otherwise_is_the_same_request(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    first = await shop.create({product_id: 3}, key="key-1")

    in_parts = await shop.create(
        {}, items=[{"qty": qty, "product_id": product_id} for qty in (1, 2)], key="key-1"
    )

    assert is_replay(in_parts, of=first)


async def test_a_request_from_another_correlation_is_the_same_request(
    shop: Shop, operation: Operation
) -> None:
    first = await shop.post(operation.path, operation.body, key="key-1", headers={"X-Correlation-Id": "one"})

    again = await shop.post(operation.path, operation.body, key="key-1", headers={"X-Correlation-Id": "two"})

    assert is_replay(again, of=first)
    assert again.headers["X-Correlation-Id"] == "two"


async def test_a_replay_after_the_order_moved_on_is_the_first_answer(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    created = await shop.create({product_id: 3}, key="create")
    order_id = created.json["data"]["id"]
    confirmed = await shop.confirm(order_id, key="confirm")
    await shop.cancel(order_id, key="cancel")

    created_again = await shop.create({product_id: 3}, key="create")
    confirmed_again = await shop.confirm(order_id, key="confirm")

    assert is_replay(created_again, of=created)
    assert is_replay(confirmed_again, of=confirmed)
    assert (await shop.show(order_id))["status"] == "CANCELED"
    assert await shop.level(product_id) == Level(stock=10, reserved=0)


async def test_a_replay_does_not_ask_customers_again(shop: Shop, open_shop: OpenShop) -> None:
    product_id = await shop.product()
    first = await shop.create({product_id: 1}, key="key-1")
    cut_off = await open_shop(**CUT_OFF)

    again = await cut_off.create({product_id: 1}, key="key-1")

    assert is_replay(again, of=first)


# --- another request ----------------------------------------------------------------------------


async def test_a_key_of_another_request_is_refused_and_nothing_is_done(
    shop: Shop, operation: Operation
) -> None:
    first = await shop.post(operation.path, operation.body, key="key-1")
    after_first = await state(shop)

    reply = await shop.post(operation.other_path, operation.other_body, key="key-1")

    problem = refused(reply, 422, "idempotency.key_reused", "retry_needs_new_key")
    assert problem["retry_needs_new_key"] is True
    assert await state(shop) == after_first
    assert is_replay(await shop.post(operation.path, operation.body, key="key-1"), of=first)


async def test_of_different_requests_in_flight_with_one_key_one_is_done(
    shop: Shop, operation: Operation
) -> None:
    replies = await asyncio.gather(
        *(shop.post(operation.path, operation.body, key="key-1") for _ in range(3)),
        *(shop.post(operation.other_path, operation.other_body, key="key-1") for _ in range(3)),
    )

    assert sorted(reply.status for reply in replies) == 3 * [operation.status] + 3 * [422]
    assert await shop.discrepancies() == []


async def test_operations_do_not_share_keys(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    created = await shop.create({product_id: 3}, key="key-1")
    confirmed = await shop.confirm(created.json["data"]["id"], key="key-1")
    canceled = await shop.cancel(created.json["data"]["id"], key="key-1")
    adjusted = await shop.adjust_stock(product_id, 1, key="key-1")

    assert [reply.status for reply in (created, confirmed, canceled, adjusted)] == [201, 200, 200, 200]


async def test_another_key_on_an_order_that_is_confirmed_leaves_its_stock_alone(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.created({product_id: 3})
    await shop.confirm(order_id, key="key-1")

    reply = await shop.confirm(order_id, key="key-2")

    refused(reply, 409, "order.not_confirmable", "order_status", "retry_needs_new_key")
    assert await shop.level(product_id) == Level(stock=7, reserved=0)


# --- refusals -----------------------------------------------------------------------------------


async def test_a_refusal_by_the_business_is_final_for_its_key(shop: Shop) -> None:
    product_id = await shop.product(stock=1)
    first = await shop.create({product_id: 3}, key="key-1")
    await shop.adjust_stock(product_id, 9)

    again = await shop.create({product_id: 3}, key="key-1")
    with_a_new_key = await shop.create({product_id: 3}, key="key-2")

    problem = refused(first, 409, "stock.insufficient", "shortages", "retry_needs_new_key")
    assert problem["retry_needs_new_key"] is True
    assert is_replay(again, of=first)
    assert with_a_new_key.status == 201


async def test_what_is_not_there_is_final_too(shop: Shop) -> None:
    unknown_product = {"customer_id": shop.customer_id, "items": [{"product_id": NOBODY, "qty": 1}]}
    requests: list[tuple[str, Any]] = [
        (f"{ORDERS}/{NOBODY}/confirm", None),
        (f"{ORDERS}/{NOBODY}/cancel", None),
        (f"{PRODUCTS}/{NOBODY}/adjust-stock", {"delta": 1, "reason": "Found"}),
        (f"{ORDERS}/create-order", unknown_product),
        (f"{ORDERS}/create-order", unknown_product | {"customer_id": NOBODY}),
    ]

    for number, (path, body) in enumerate(requests):
        first = await shop.post(path, body, key=f"key-{number}")
        again = await shop.post(path, body, key=f"key-{number}")

        assert first.status == 404
        assert first.json["retry_needs_new_key"] is True
        assert is_replay(again, of=first)


async def test_a_request_that_cannot_be_read_leaves_its_key_free(shop: Shop, operation: Operation) -> None:
    bad = await shop.post(operation.bad_path, operation.bad_body, key="key-1")

    good = await shop.post(operation.path, operation.body, key="key-1")

    refused(bad, 400, "request.invalid")
    assert good.status == operation.status
    assert "Idempotent-Replayed" not in good.headers


async def test_an_order_that_could_not_be_decided_leaves_its_key_free(
    shop: Shop, open_shop: OpenShop
) -> None:
    cut_off = await open_shop(**CUT_OFF)
    product_id = await shop.product()

    undecided = await cut_off.create({product_id: 1}, key="key-1")
    decided = await shop.create({product_id: 1}, key="key-1")

    problem = refused(undecided, 503, "customers.unavailable")
    assert problem["retryable"] is True
    assert decided.status == 201
    assert "Idempotent-Replayed" not in decided.headers


# --- keys ---------------------------------------------------------------------------------------


async def test_one_key_has_several_ways_to_be_written(shop: Shop) -> None:
    order_id = await shop.created({await shop.product(): 1})
    first = await shop.confirm(order_id, key="key-1")

    again = [
        await shop.post(f"{ORDERS}/{order_id}/confirm", headers=headers)
        for headers in (
            {"Idempotency-Key": '"key-1"'},
            {"Idempotency-Key": " key-1 "},
            {"X-Idempotency-Key": "key-1"},
            {"Idempotency-Key": "key-1", "X-Idempotency-Key": '"key-1"'},
        )
    ]

    assert all(is_replay(reply, of=first) for reply in again)


async def test_keys_are_compared_to_the_letter(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    keys = ["key-1", "Key-1", "KEY-1", "key-1.", "'key-1'", "key_1", "ke"]

    replies = [await shop.create({product_id: 1}, key=key) for key in keys]

    assert [reply.status for reply in replies] == len(keys) * [201]
    assert await shop.level(product_id) == Level(stock=10, reserved=len(keys))


async def test_a_key_has_up_to_255_characters(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    replies = [await shop.create({product_id: 3}, key=key) for key in ("k" * 255, "k" * 254 + "x")]

    assert [reply.status for reply in replies] == [201, 201]
    assert is_replay(await shop.create({product_id: 3}, key="k" * 255), of=replies[0])


async def test_a_key_that_cannot_be_is_refused_and_nothing_is_done(shop: Shop, operation: Operation) -> None:
    before = await state(shop)

    replies = [
        await shop.post(operation.path, operation.body, headers={"Idempotency-Key": key})
        for key in ("k" * 256, "k" * 300, "two words", '""', "", "schlüssel")
    ]

    for reply in replies:
        problem = refused(reply, 400, "idempotency.key_invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["header:Idempotency-Key"]
    assert await state(shop) == before


async def test_two_keys_on_one_request_are_refused_and_nothing_is_done(
    shop: Shop, operation: Operation
) -> None:
    before = await state(shop)

    reply = await shop.post(
        operation.path, operation.body, headers={"Idempotency-Key": "key-1", "X-Idempotency-Key": "key-2"}
    )

    problem = refused(reply, 400, "idempotency.key_invalid")
    assert [error["pointer"] for error in problem["errors"]] == [
        "header:Idempotency-Key",
        "header:X-Idempotency-Key",
    ]
    assert await state(shop) == before


# --- their end ----------------------------------------------------------------------------------


async def test_a_key_is_forgotten_seven_days_after_it_was_done_with(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    first = await shop.create({product_id: 3}, key="old")
    await shop.create({product_id: 1}, key="young")
    await set_age(shop, b"old", days=7.01)
    await set_age(shop, b"young", days=6.99)

    purged = await shop.app[KEYS].purge(7)

    anew = await shop.create({product_id: 3}, key="old")
    assert purged == 1
    assert anew.status == 201
    assert anew.json["data"]["id"] != first.json["data"]["id"]
    assert (await shop.create({product_id: 1}, key="young")).headers["Idempotent-Replayed"] == "true"
    assert await shop.level(product_id) == Level(stock=10, reserved=7)


async def test_a_key_that_is_not_purged_yet_is_still_known(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    first = await shop.create({product_id: 3}, key="key-1")
    await set_age(shop, b"key-1", days=365)

    assert is_replay(await shop.create({product_id: 3}, key="key-1"), of=first)


async def set_age(shop: Shop, key: bytes, days: float) -> None:
    """Let the key have been done with so many days ago."""
    moment = dialects.seconds_from_now(-days * 86_400)
    statement = update(IdempotencyKey).where(IdempotencyKey.key == key).values(completed_at=moment)
    await shop.database.transact(lambda session: session.execute(statement))
