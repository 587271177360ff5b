"""The main job between real processes that are killed, stopped and observed, on both databases.

The processes are shared by the tests of this module; every test has a customer and a product of its own.
"""

# ruff: noqa: F401, F811 - fixtures are imported, and found by their names

import asyncio
from typing import Any

import aiohttp
import pytest

from chassis.database import Database
from orchestrator.models import UNFINISHED
from orders.reconcile import find_discrepancies
from tests.client import Reply
from tests.e2e.system import System, backend, system, urls
from tests.orchestrator.shop import Orchestrator, not_ended, until
from tests.orchestrator.wire import Held

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 50
"""More calls than are repeated while one is held."""


async def nothing_is_off(system: System) -> None:
    """Assert that stock, reservations and totals equal the ledger."""
    database = Database(system.orders_settings)
    try:
        assert await find_discrepancies(database) == []
    finally:
        await database.close()


async def continued(orchestrator: Orchestrator, body: Any, key: str) -> Reply:
    """Ask with the same key until there is an answer, as a client does that must have one."""

    async def answered() -> Reply | None:
        try:
            reply = await orchestrator.job(body, key)
        except aiohttp.ClientError:
            return None
        if reply.status == 409:
            assert reply.json["code"] == "idempotency.in_progress"
        elif reply.status != 503:
            return reply
        assert int(reply.headers["Retry-After"]) > 0
        return None

    reply: Reply = await until(answered)
    return reply


# --- a process that dies ------------------------------------------------------------------------


async def test_sagas_of_an_orchestrator_that_was_killed_are_ended_by_the_next_one(system: System) -> None:
    body = await system.catalog.basket(qty=1)
    confirming, created = Held(), Held(done=True)
    system.to_orders.breaks("/confirm", *[confirming] * MANY)
    one = asyncio.create_task(system.orchestrator.job(body, "killed-1"))
    await confirming.arrived()
    system.to_orders.breaks("/create-order", *[created] * MANY)
    other = asyncio.create_task(system.orchestrator.job(body, "killed-2"))
    await created.arrived()
    sagas = (await system.orchestrator.client.get("/orchestrator/sagas?status=RUNNING")).json["data"]

    await system.processes.orchestrator.kill()
    lost = await asyncio.gather(one, other, return_exceptions=True)
    confirming.let_go()
    created.let_go()
    await system.processes.orchestrator.start()
    ended = [await system.orchestrator.ended(saga["id"]) for saga in sagas]

    assert [outcome for outcome in lost if isinstance(outcome, Reply)] == []
    assert [saga["step"] for saga in sagas] == ["create_order", "confirm_order"]
    assert [saga["status"] for saga in ended] == ["SUCCEEDED"] * 2
    replies = [await system.orchestrator.job(body, f"killed-{number}") for number in (1, 2)]
    assert [(reply.status, reply.headers["Idempotent-Replayed"]) for reply in replies] == [(201, "true")] * 2
    made = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert sorted(order["id"] for order in made) == sorted(
        reply.json["data"]["order"]["id"] for reply in replies
    )
    assert await system.catalog.stock(body) == (8, 0)
    await nothing_is_off(system)


async def test_a_saga_outlives_the_death_of_orders(system: System) -> None:
    body = await system.catalog.basket()
    held = Held()
    system.to_orders.breaks("/confirm", *[held] * MANY)
    asking = asyncio.create_task(system.orchestrator.job(body, "orders-killed"))
    await held.arrived()

    await system.processes.orders.kill()
    held.let_go()
    unfinished = await asking
    await system.processes.orders.start()
    problem = not_ended(unfinished, "saga.unfinished", step="confirm_order")
    saga = await system.orchestrator.ended(problem["saga_id"])

    assert saga["status"] == "SUCCEEDED"
    reply = await system.orchestrator.job(body, "orders-killed")
    assert (reply.status, reply.json["data"]["order"]) == (201, saga["order"])
    (order,) = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert order["status"] == "CONFIRMED"
    assert await system.catalog.stock(body) == (8, 0)
    await nothing_is_off(system)


# --- a process that is stopped ------------------------------------------------------------------


async def test_an_orchestrator_that_is_stopped_under_load_loses_nothing(system: System) -> None:
    body = await system.catalog.basket(qty=1, stock=32)
    answers: dict[str, Reply] = {}

    async def client(number: int) -> None:
        for job in range(4):
            key = f"load-{number}-{job}"
            answers[key] = await continued(system.orchestrator, body, key)

    async def some_are_answered() -> bool:
        return len(answers) >= 4

    clients = asyncio.gather(*(client(number) for number in range(8)))
    await until(some_are_answered)

    code = await system.processes.orchestrator.terminate()
    before_the_rest = len(answers)
    await system.processes.orchestrator.start()
    await clients

    assert code == 0
    assert before_the_rest < 32
    assert {reply.status for reply in answers.values()} == {201}
    made = await system.catalog.all_orders(customer_id=body["customer_id"])
    assert {order["status"] for order in made} == {"CONFIRMED"}
    assert len(made) == 32
    assert {order["id"] for order in made} == {
        reply.json["data"]["order"]["id"] for reply in answers.values()
    }
    assert await system.catalog.stock(body) == (0, 0)
    for status in UNFINISHED:
        left = await system.orchestrator.client.get(f"/orchestrator/sagas?status={status}")
        assert left.json["data"] == []
    await nothing_is_off(system)
