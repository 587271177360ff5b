"""Sagas that nobody drives any more are driven on, in whichever replica, without their clients."""

import asyncio
from typing import Any

from sqlalchemy import update

from chassis.lifecycle import LIFECYCLE
from orchestrator import queries
from orchestrator.models import Saga
from tests.observed import Sample
from tests.orchestrator.shop import Replica, Shop, ended_by, not_ended
from tests.orchestrator.wire import Held

LEASE_SECONDS = 20


async def left_behind(shop: Shop, body: Any, number: int) -> list[str]:
    """Let a replica that cannot reach orders leave sagas behind whose pause is over; return their ids."""
    replica = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True
    replies = await asyncio.gather(*(replica.job(body, key=f"key-{count}") for count in range(number)))
    shop.to_orders.down = False
    sagas = [not_ended(reply, "saga.unfinished", step="create_order")["saga_id"] for reply in replies]
    for saga_id in sagas:
        await replica.lease_runs_out(saga_id)
    return sagas


async def test_a_sweep_drives_on_what_was_left_behind(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    (saga_id,) = await left_behind(shop, body, 1)

    await orchestrator.driver.sweep()

    saga = await orchestrator.ended(saga_id)
    assert (saga["status"], saga["attempts"]) == ("SUCCEEDED", 2)
    reply = await orchestrator.job(body, key="key-0")
    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")


async def test_a_replica_that_drains_takes_nothing_over(shop: Shop, orchestrator: Replica) -> None:
    (saga_id,) = await left_behind(shop, await shop.basket(), 1)
    draining = await shop.replica(sweep_every=0.05)
    draining.app[LIFECYCLE].drain()
    await asyncio.sleep(0.5)

    left = await orchestrator.saga(saga_id)
    await orchestrator.driver.sweep()

    assert (left["status"], left["attempts"]) == ("RUNNING", 1)
    assert (await orchestrator.ended(saga_id))["status"] == "SUCCEEDED"


async def test_sweeps_of_two_replicas_at_once_drive_each_saga_once(shop: Shop) -> None:
    body = await shop.basket(qty=1, stock=8)
    sagas = await left_behind(shop, body, 8)
    replicas = [await shop.replica(), await shop.replica()]

    await asyncio.gather(*(replica.driver.sweep() for replica in replicas))

    ended = [await replicas[0].ended(saga_id) for saga_id in sagas]
    assert [(saga["status"], saga["attempts"]) for saga in ended] == [("SUCCEEDED", 2)] * 8
    assert len(await shop.all_orders()) == 8
    assert await shop.stock(body) == (0, 0)


async def test_a_sweep_leaves_alone_what_is_driven(shop: Shop) -> None:
    body = await shop.basket()
    driving, sweeping = await shop.replica(), await shop.replica()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(driving.job(body))
    await held.arrived()

    await sweeping.driver.sweep()
    await driving.driver.sweep()
    held.let_go()

    assert (await first).status == 201
    assert (await driving.only_saga())["attempts"] == 1


async def test_a_sweep_leaves_alone_what_pauses(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True
    saga_id = (await orchestrator.job(body)).json["saga_id"]
    shop.to_orders.down = False

    await orchestrator.driver.sweep()
    await orchestrator.stopped_working()

    saga = await orchestrator.saga(saga_id)
    assert (saga["status"], saga["attempts"]) == ("RUNNING", 1)


async def test_a_saga_that_was_tried_a_thousand_times_pauses_no_longer_than_its_lease(shop: Shop) -> None:
    orchestrator = await shop.replica(peer_deadline=0.1, saga_attempts=5000, saga_lease=LEASE_SECONDS)
    (saga_id,) = await left_behind(shop, await shop.basket(), 1)
    await orchestrator.database.transact(lambda session: session.execute(update(Saga).values(attempts=2000)))
    shop.to_orders.down = True

    await orchestrator.driver.sweep()
    await orchestrator.stopped_working()

    async with orchestrator.database.read() as session:
        saga = await queries.get_saga(session, saga_id)
    assert saga.is_paused
    assert (saga.resume_at - saga.lease_until).total_seconds() <= LEASE_SECONDS


async def test_what_was_left_behind_keeps_its_correlation_id(shop: Shop, orchestrator: Replica) -> None:
    body = {**await shop.basket(), "correlation_id": "req-456"}
    (saga_id,) = await left_behind(shop, body, 1)

    await orchestrator.driver.sweep()

    assert (await orchestrator.ended(saga_id))["correlation_id"] == "req-456"
    assert (await shop.only_order())["correlation_id"] == "req-456"
    assert (await orchestrator.job(body, key="key-0")).json["correlation_id"] == "req-456"


async def test_a_refusal_that_comes_without_the_client_is_kept_for_it(
    shop: Shop, orchestrator: Replica
) -> None:
    body = {**await shop.basket(), "correlation_id": "req-456"}
    (saga_id,) = await left_behind(shop, body, 1)
    product_id = body["items"][0]["product_id"]
    await shop.orders.patch(f"/admin/products/logic-delete/{product_id}")

    await orchestrator.driver.sweep()

    assert (await orchestrator.ended(saga_id))["status"] == "FAILED"
    reply = await orchestrator.job(body, key="key-0")
    ended_by(reply, 409, "product.inactive", step="create_order", product_ids=[product_id])
    assert reply.headers["Idempotent-Replayed"] == "true"


async def test_what_never_ends_is_given_up_and_can_be_found(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1, saga_attempts=2)
    (saga_id,) = await left_behind(shop, body, 1)
    shop.to_orders.down = True
    stuck = Sample("b2b_sagas", state="NEEDS_ATTENTION")

    for _ in range(2):
        await orchestrator.driver.sweep()
        await orchestrator.stopped_working()
        await orchestrator.lease_runs_out(saga_id)
    await orchestrator.driver.sweep()

    listed = (await orchestrator.client.get("/orchestrator/sagas?status=NEEDS_ATTENTION")).json["data"]
    assert [saga["id"] for saga in listed] == [saga_id]
    assert (listed[0]["attention"], listed[0]["attempts"]) == ("No end after 2 attempts.", 3)
    assert stuck.value == 1


async def test_a_sweep_counts_what_has_no_answer_yet(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    await left_behind(shop, body, 3)
    held = [Held() for _ in range(3)]
    shop.to_orders.breaks("/create-order", *held)

    await orchestrator.driver.sweep()
    running = Sample("b2b_sagas", state="RUNNING").value
    for call in held:
        call.let_go()
    await orchestrator.stopped_working()
    await orchestrator.driver.sweep()

    assert running == 3
    assert Sample("b2b_sagas", state="RUNNING").value == 0
