"""Sagas as operators look at them."""

import re
from typing import Any

import pytest
from sqlalchemy import update

from chassis import dialects
from chassis.database import changed
from orchestrator.models import Saga
from tests.client import refused
from tests.orchestrator.shop import Replica, Shop, ended_by

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
NO_SAGA = "0" * 32


async def test_a_saga_shows_its_state_its_steps_and_its_result(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "correlation_id": "req-456", "purchase_order_number": "PO-1"}
    result = (await orchestrator.job(body)).json

    reply = await orchestrator.client.get(f"/orchestrator/sagas/{result['saga_id']}")

    assert reply.status == 200
    saga = reply.json["data"]
    times = {name: saga.pop(name) for name in ("created_at", "updated_at", "finished_at")}
    steps = saga.pop("steps")
    assert saga == {
        "id": result["saga_id"],
        "status": "SUCCEEDED",
        "step": None,
        "attempts": 1,
        "attention": None,
        "request": {
            "customer_id": body["customer_id"],
            "items": body["items"],
            "purchase_order_number": "PO-1",
        },
        "customer": result["data"]["customer"],
        "order": result["data"]["order"],
        "refusal": None,
        "principal": "anonymous",
        "correlation_id": "req-456",
    }
    assert times["created_at"] <= times["updated_at"] == times["finished_at"]
    assert [(step["step"], step["outcome"], step["attempts"], step["code"]) for step in steps] == [
        ("validate_customer", "done", 1, None),
        ("create_order", "done", 1, None),
        ("confirm_order", "done", 1, None),
    ]
    moments = [step[name] for step in steps for name in ("started_at", "finished_at")]
    assert moments == sorted(moments)
    assert all(TIMESTAMP.fullmatch(moment) for moment in [*times.values(), *moments])


async def test_a_saga_shows_the_refusal_that_ended_it(shop: Shop, orchestrator: Replica) -> None:
    reply = await orchestrator.job(await shop.basket(qty=11, stock=10))

    saga = await orchestrator.saga(reply.json["saga_id"])

    assert (saga["status"], saga["step"], saga["order"]) == ("FAILED", None, None)
    assert saga["refusal"] == {
        "code": "stock.insufficient",
        "members": {"shortages": reply.json["shortages"]},
        "step": "create_order",
    }
    assert (saga["steps"][-1]["outcome"], saga["steps"][-1]["code"]) == ("refused", "stock.insufficient")


async def test_a_saga_that_does_not_exist(orchestrator: Replica) -> None:
    shown = await orchestrator.client.get(f"/orchestrator/sagas/{NO_SAGA}")
    retried = await orchestrator.client.post(f"/orchestrator/sagas/{NO_SAGA}/retry")

    refused(shown, 404, "saga.not_found")
    refused(retried, 404, "saga.not_found")


@pytest.mark.parametrize("saga_id", ["1", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "%27%20OR%201%3D1"])
async def test_a_bad_saga_id_is_refused(orchestrator: Replica, saga_id: str) -> None:
    shown = await orchestrator.client.get(f"/orchestrator/sagas/{saga_id}")
    retried = await orchestrator.client.post(f"/orchestrator/sagas/{saga_id}/retry")

    for reply in (shown, retried):
        problem = refused(reply, 400, "request.invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["path:saga_id"]


async def test_a_saga_that_ended_cannot_be_retried(shop: Shop, orchestrator: Replica) -> None:
    saga_id = (await orchestrator.job(await shop.basket())).json["saga_id"]

    reply = await orchestrator.client.post(f"/orchestrator/sagas/{saga_id}/retry")

    refused(reply, 409, "saga.not_retryable")
    assert (await orchestrator.saga(saga_id))["attempts"] == 1


async def test_sagas_are_filtered_by_their_state(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    failed = await orchestrator.job({**body, "customer_id": 999}, key="key-1")
    succeeded = await orchestrator.job(body, key="key-2")

    listed = {
        status: ids(await find(orchestrator, status=status)) for status in ("FAILED", "SUCCEEDED", "RUNNING")
    }

    assert listed == {
        "FAILED": [failed.json["saga_id"]],
        "SUCCEEDED": [succeeded.json["saga_id"]],
        "RUNNING": [],
    }


async def test_pages_of_sagas_are_stable_while_sagas_are_started(orchestrator: Replica) -> None:
    started = [await start(orchestrator, number) for number in range(5)]

    first = await find(orchestrator, limit="2")
    await start(orchestrator, 5)
    second = await find(orchestrator, limit="2", cursor=first["meta"]["next_cursor"])
    third = await find(orchestrator, limit="2", cursor=second["meta"]["next_cursor"])

    assert [ids(page) for page in (first, second, third)] == [
        [started[4], started[3]],
        [started[2], started[1]],
        [started[0]],
    ]
    assert third["meta"] == {"limit": 2, "next_cursor": None, "has_next": False}


async def test_sagas_of_the_same_moment_are_on_one_page_each(orchestrator: Replica) -> None:
    started = [await start(orchestrator, number) for number in range(3)]
    same_moment = update(Saga).values(created_at=dialects.now())
    await orchestrator.database.transact(lambda session: changed(session, same_moment))

    first = await find(orchestrator, limit="2")
    second = await find(orchestrator, limit="2", cursor=first["meta"]["next_cursor"])

    assert ids(first) + ids(second) == sorted(started, reverse=True)


async def test_an_exactly_full_last_page_of_sagas_has_no_cursor(orchestrator: Replica) -> None:
    for number in range(2):
        await start(orchestrator, number)

    page = await find(orchestrator, limit="2")

    assert len(page["data"]) == 2
    assert page["meta"] == {"limit": 2, "next_cursor": None, "has_next": False}


async def test_a_cursor_belongs_to_its_filters(orchestrator: Replica) -> None:
    for number in range(2):
        await start(orchestrator, number)
    cursor = (await find(orchestrator, limit="1", status="FAILED"))["meta"]["next_cursor"]

    reply = await orchestrator.client.get("/orchestrator/sagas", params={"limit": "1", "cursor": cursor})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["query:cursor"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "DONE"), ("limit", "0"), ("limit", "101"), ("cursor", "abc"), ("order", "asc")],
)
async def test_a_bad_filter_of_sagas_is_refused(orchestrator: Replica, name: str, value: str) -> None:
    reply = await orchestrator.client.get("/orchestrator/sagas", params={name: value})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [f"query:{name}"]


async def find(orchestrator: Replica, **query: str) -> Any:
    reply = await orchestrator.client.get("/orchestrator/sagas", params=query)
    assert reply.status == 200, reply.text
    return reply.json


def ids(page: Any) -> list[str]:
    return [saga["id"] for saga in page["data"]]


async def start(orchestrator: Replica, number: int) -> str:
    """Start a saga that fails at once; return its id."""
    body = {"customer_id": 999, "items": [{"product_id": 1, "qty": 1}]}
    reply = await orchestrator.job(body, key=f"key-{number}")
    saga_id: str = ended_by(reply, 404, "customer.not_found", step="validate_customer")["saga_id"]
    return saga_id
