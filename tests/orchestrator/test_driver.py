"""Peers that fail, refuse and forget: every saga ends once, and its steps have one effect each."""

import asyncio
import gc
import json
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.answers import JOB_PATH
from orchestrator.settings import Settings
from tests.client import HOST
from tests.databases import MakeSettings
from tests.faults.proxy import NONE, Faults, proxy, to
from tests.observed import LogLines, Sample
from tests.orchestrator.shop import Replica, Shop, ended_by, not_ended
from tests.orchestrator.wire import (
    Fault,
    Held,
    PassOn,
    after,
    answers,
    breaks_off,
    cuts_the_answer,
    loses_the_answer,
    never_answers,
)


def steps_of(saga: Any) -> list[tuple[str, str, int, str | None]]:
    return [(step["step"], step["outcome"], step["attempts"], step["code"]) for step in saga["steps"]]


# --- a peer that fails and recovers -------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [
        answers(429),
        answers(500, {"detail": "SELECT"}),
        answers(503),
        answers(409, {"code": "idempotency.in_progress"}),
        breaks_off,
        loses_the_answer,
        cuts_the_answer,
    ],
    ids=["429", "500", "503", "in progress", "broken connection", "lost answer", "cut answer"],
)
async def test_a_peer_that_recovers_within_the_step_is_not_noticed(
    shop: Shop, orchestrator: Replica, fault: Fault
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/create-order", fault, fault)
    shop.to_orders.breaks("/confirm", fault)

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    saga = await orchestrator.saga(reply.json["saga_id"])
    assert steps_of(saga) == [
        ("validate_customer", "done", 1, None),
        ("create_order", "done", 3, None),
        ("confirm_order", "done", 2, None),
    ]
    assert (await shop.only_order())["status"] == "CONFIRMED"
    assert await shop.stock(body) == (8, 0)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", [answers(503), breaks_off, cuts_the_answer])
async def test_customers_is_asked_again_too(shop: Shop, orchestrator: Replica, fault: Fault) -> None:
    body = await shop.basket()
    shop.to_customers.breaks(f"/customers/{body['customer_id']}", fault)

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    assert shop.to_customers.calls == 2 * [f"GET /admin/customers/internal/customers/{body['customer_id']}"]


async def test_a_peer_that_does_not_answer_is_asked_again(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_timeout=0.5)
    shop.to_orders.breaks("/create-order", never_answers)

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    saga = await orchestrator.saga(reply.json["saga_id"])
    assert saga["steps"][1]["attempts"] > 1
    assert len(await shop.all_orders()) == 1


# --- a step that is done twice ------------------------------------------------------------------


@pytest.mark.parametrize("forgets", [loses_the_answer, cuts_the_answer])
async def test_an_order_whose_answer_was_lost_is_created_once(
    shop: Shop, orchestrator: Replica, forgets: Fault
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/create-order", forgets)

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    assert reply.json["data"]["order"]["id"] == (await shop.only_order())["id"]
    assert await shop.stock(body) == (8, 0)


@pytest.mark.parametrize("forgets", [loses_the_answer, cuts_the_answer])
async def test_a_confirmation_whose_answer_was_lost_sells_once(
    shop: Shop, orchestrator: Replica, forgets: Fault
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", forgets)

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    assert (await shop.only_order())["status"] == "CONFIRMED"
    assert await shop.stock(body) == (8, 0)


async def test_a_step_that_was_done_before_the_saga_paused_is_not_done_again(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)

    async def goes_down_when_it_is_done(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        shop.to_orders.down = True
        return await loses_the_answer(request, pass_on)

    shop.to_orders.breaks("/create-order", goes_down_when_it_is_done)
    unfinished = await orchestrator.job(body)
    shop.to_orders.down = False

    reply = await orchestrator.job(body)

    not_ended(unfinished, "saga.unfinished", step="create_order")
    assert reply.json["data"]["order"]["id"] == (await shop.only_order())["id"]
    assert await shop.stock(body) == (8, 0)


# --- a peer that is down ------------------------------------------------------------------------


async def test_a_saga_whose_peer_is_down_pauses_and_tells_its_client(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True

    reply = await orchestrator.job(body)

    problem = not_ended(reply, "saga.unfinished", step="create_order")
    saga = await orchestrator.saga(problem["saga_id"])
    assert (saga["status"], saga["step"], saga["attempts"]) == ("RUNNING", "create_order", 1)
    assert saga["customer"]["id"] == body["customer_id"]
    (done, failed) = steps_of(saga)
    assert done == ("validate_customer", "done", 1, None)
    assert failed[:2] + failed[3:] == ("create_order", "unavailable", "peer.unavailable")
    assert failed[2] > 1


async def test_a_saga_is_ended_without_its_client_once_the_peer_is_back(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1, sweep_every=0.1)
    shop.to_orders.down = True
    saga_id = (await orchestrator.job(body)).json["saga_id"]

    shop.to_orders.down = False
    await orchestrator.lease_runs_out(saga_id)
    saga = await orchestrator.ended(saga_id)

    assert saga["status"] == "SUCCEEDED"
    reply = await orchestrator.job(body)
    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")
    assert reply.json["data"]["order"] == saga["order"]
    assert await shop.stock(body) == (8, 0)


async def test_attempts_before_and_after_a_pause_are_added_up(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_customers.down = True
    unfinished = await orchestrator.job(body)
    saga_id = not_ended(unfinished, "saga.unfinished", step="validate_customer")["saga_id"]
    (before,) = (await orchestrator.saga(saga_id))["steps"]
    shop.to_customers.down = False

    await orchestrator.job(body)

    (step, *_) = (await orchestrator.saga(saga_id))["steps"]
    assert (step["outcome"], step["attempts"], step["code"]) == ("done", before["attempts"] + 1, None)
    assert step["started_at"] == before["started_at"]
    assert step["finished_at"] > before["finished_at"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("nonsense", "code"),
    [
        (answers(201, {"data": None}), "peer.broken"),
        (answers(201, {"data": {"id": 1}}), "peer.broken"),
        (answers(201, ["data"]), "peer.broken"),
        (answers(201, "data"), "peer.broken"),
        (answers(404, {"message": "Cannot POST"}), "peer.broken"),
        (answers(404, {"code": "route.not_found"}), "peer.broken"),
        (answers(409, {"code": ["stock.insufficient"]}), "peer.broken"),
        (answers(409, {"detail": "SELECT"}), "peer.broken"),
        (answers(302), "peer.broken"),
        (answers(401, {"code": "auth.service_token_invalid"}), "peer.unavailable"),
        (answers(403, {"code": "auth.forbidden"}), "peer.unavailable"),
    ],
)
async def test_an_answer_that_breaks_the_contract_is_no_refusal(
    shop: Shop, nonsense: Fault, code: str
) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.05)
    shop.to_orders.breaks("/create-order", *[nonsense] * 20)

    reply = await orchestrator.job(body)

    problem = not_ended(reply, "saga.unfinished", step="create_order")
    saga = await orchestrator.saga(problem["saga_id"])
    assert saga["status"] == "RUNNING"
    assert (saga["steps"][-1]["outcome"], saga["steps"][-1]["code"]) == ("unavailable", code)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_customer_of_whom_it_is_not_said_whether_it_may_order_is_no_refusal(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.05)
    customer = {"id": body["customer_id"], "name": "ACME", "email": "ops@acme.com", "phone": None}
    shop.to_customers.breaks(f"/customers/{body['customer_id']}", answers(200, {"data": customer}))

    unfinished = await orchestrator.job(body)
    reply = await orchestrator.job(body)

    not_ended(unfinished, "saga.unfinished", step="validate_customer")
    assert reply.status == 201


async def test_the_attempts_before_a_refusal_are_recorded(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket(qty=11, stock=10)
    shop.to_orders.breaks("/create-order", answers(503), breaks_off)

    reply = await orchestrator.job(body)

    saga = await orchestrator.saga(reply.json["saga_id"])
    assert steps_of(saga)[-1] == ("create_order", "refused", 3, "stock.insufficient")


# --- compensation -------------------------------------------------------------------------------


async def test_an_order_that_cannot_be_confirmed_is_canceled_before_the_client_is_told(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    await shop.other_orders(reservation_ttl=0.001)
    compensations = Sample("b2b_saga_compensations_total")

    reply = await orchestrator.job(body)

    problem = ended_by(reply, 409, "order.expired", step="confirm_order", compensated=True)
    order = await shop.only_order()
    assert (order["status"], order["cancel_reason"]) == ("CANCELED", f"saga {problem['saga_id']}")
    assert await shop.stock(body) == (10, 0)
    saga = await orchestrator.saga(problem["saga_id"])
    assert (saga["status"], saga["order"]["status"]) == ("COMPENSATED", "CANCELED")
    assert steps_of(saga)[2:] == [
        ("confirm_order", "refused", 1, "order.expired"),
        ("cancel_order", "done", 1, None),
    ]
    assert compensations.moved == 1


async def test_an_order_that_was_canceled_behind_its_back_is_compensated_too(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", after(shop.cancel))

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "order.not_confirmable", step="confirm_order", compensated=True)
    order = await shop.only_order()
    assert (order["status"], order["cancel_reason"]) == ("CANCELED", "by hand")
    assert await shop.stock(body) == (10, 0)


async def test_the_answer_of_a_compensated_saga_is_kept(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", after(shop.cancel))
    first = await orchestrator.job(body)

    replay = await orchestrator.job(body)

    assert replay.headers["Idempotent-Replayed"] == "true"
    assert (replay.status, replay.body) == (first.status, first.body)
    assert len(await shop.all_orders()) == 1


async def test_a_compensation_whose_answer_was_lost_is_done_once(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    await shop.other_orders(reservation_ttl=0.001)
    shop.to_orders.breaks("/cancel", loses_the_answer)

    reply = await orchestrator.job(body)

    ended_by(reply, 409, "order.expired", step="confirm_order", compensated=True)
    assert await shop.stock(body) == (10, 0)


async def test_a_compensation_that_fails_is_tried_until_it_ends(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)

    async def refuses_and_goes_down(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        shop.to_orders.down = True
        return await after(shop.cancel)(request, pass_on)

    shop.to_orders.breaks("/confirm", refuses_and_goes_down)
    replies = [await orchestrator.job(body, X_Correlation_Id="req-1") for _ in range(2)]
    (saga_id, _) = [not_ended(reply, "saga.unfinished", step="confirm_order")["saga_id"] for reply in replies]
    compensating = await orchestrator.saga(saga_id)
    shop.to_orders.down = False

    reply = await orchestrator.job(body, X_Correlation_Id="req-1")

    assert (compensating["status"], compensating["attempts"]) == ("COMPENSATING", 1)
    ended_by(reply, 409, "order.not_confirmable", step="confirm_order", compensated=True)
    assert (await orchestrator.saga(saga_id))["status"] == "COMPENSATED"


async def test_a_compensation_that_is_refused_needs_attention_and_goes_on_when_retried(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", after(shop.cancel))
    shop.to_orders.breaks("/cancel", answers(409, {"code": "order.cancel_window_closed"}))
    stuck = await orchestrator.job(body, X_Correlation_Id="req-1")
    saga_id = not_ended(stuck, "saga.needs_attention", step="confirm_order")["saga_id"]
    before = await orchestrator.saga(saga_id)

    retried = await orchestrator.client.post(f"/orchestrator/sagas/{saga_id}/retry")
    ended = await orchestrator.ended(saga_id)

    assert (before["status"], before["step"]) == ("NEEDS_ATTENTION", "cancel_order")
    assert before["attention"] == "The compensation was refused: order.cancel_window_closed."
    assert retried.status == 202
    assert retried.headers["Location"] == f"/orchestrator/sagas/{saga_id}"
    assert retried.json["data"]["status"] == "COMPENSATING"
    assert (ended["status"], ended["attention"]) == ("COMPENSATED", None)
    reply = await orchestrator.job(body, X_Correlation_Id="req-1")
    ended_by(reply, 409, "order.not_confirmable", step="confirm_order", compensated=True)
    assert await shop.stock(body) == (10, 0)


async def test_an_order_that_is_confirmed_already_is_not_canceled_for_it(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    shop.to_orders.breaks("/confirm", after(shop.confirm))

    reply = await orchestrator.job(body)

    assert reply.status == 201, reply.text
    order = await shop.only_order()
    assert order["status"] == reply.json["data"]["order"]["status"] == "CONFIRMED"
    assert order["confirmed_at"] == reply.json["data"]["order"]["confirmed_at"]
    assert await shop.stock(body) == (8, 0)


# --- an end at last -----------------------------------------------------------------------------


async def test_a_saga_without_an_end_is_given_up_and_goes_on_when_retried(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1, saga_attempts=1, sweep_every=0.05)
    shop.to_orders.down = True
    replies = [await orchestrator.job(body) for _ in range(3)]
    saga_id = not_ended(replies[0], "saga.unfinished", step="create_order")["saga_id"]
    given_up = await orchestrator.ended(saga_id)
    late = await orchestrator.job(body)

    shop.to_orders.down = False
    retried = await orchestrator.client.post(f"/orchestrator/sagas/{saga_id}/retry")

    not_ended(replies[1], "saga.unfinished", step="create_order")
    not_ended(replies[2], "saga.unfinished", step="create_order")  # a client spends no attempts
    not_ended(late, "saga.needs_attention", step="create_order")
    assert (given_up["status"], given_up["step"]) == ("NEEDS_ATTENTION", "create_order")
    assert given_up["attention"] == "No end after 1 attempts."
    assert (retried.status, retried.json["data"]["status"]) == (202, "RUNNING")
    assert (await orchestrator.ended(saga_id))["status"] == "SUCCEEDED"
    assert (await orchestrator.job(body)).status == 201


async def test_two_operators_who_retry_a_saga_at_once_retry_it_once(shop: Shop) -> None:
    body = await shop.basket()
    replicas = [await shop.replica(peer_deadline=0.1, saga_attempts=1, sweep_every=0.05) for _ in range(2)]
    shop.to_orders.down = True
    saga_id = (await replicas[0].job(body)).json["saga_id"]
    await replicas[0].ended(saga_id)
    shop.to_orders.down = False

    replies = await asyncio.gather(
        *(replica.client.post(f"/orchestrator/sagas/{saga_id}/retry") for replica in replicas)
    )

    assert sorted(reply.status for reply in replies) == [202, 409]
    assert (await replicas[0].ended(saga_id))["status"] == "SUCCEEDED"
    assert len(await shop.all_orders()) == 1


# --- clients and replicas that go away ----------------------------------------------------------


async def test_a_client_that_hangs_up_does_not_stop_its_saga(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    held = Held()
    shop.to_customers.breaks(f"/customers/{body['customer_id']}", held)
    await send_and_hang_up(orchestrator, body)
    await held.arrived()

    held.let_go()

    saga = await orchestrator.ended((await orchestrator.only_saga())["id"])
    assert saga["status"] == "SUCCEEDED"
    reply = await orchestrator.job(body)
    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")


async def send_and_hang_up(orchestrator: Replica, body: Any) -> None:
    raw = json.dumps(body).encode()
    head = (
        f"POST {JOB_PATH} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: key-1\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection(HOST, orchestrator.client.port)
    writer.write(head.encode() + raw)
    await writer.drain()
    writer.transport.abort()


async def test_a_replica_that_stops_lets_its_sagas_come_to_an_end(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    accepted = await orchestrator.job(body, Prefer="respond-async")
    await held.arrived()

    stopping = asyncio.create_task(orchestrator.driver.close(60))
    held.let_go()
    await stopping

    assert (await orchestrator.saga(accepted.json["saga_id"]))["status"] == "SUCCEEDED"


async def test_a_replica_that_stops_gives_the_sagas_back_that_it_cannot_end(shop: Shop) -> None:
    body = await shop.basket()
    stopping, other = await shop.replica(), await shop.replica()
    held = Held(done=True)
    shop.to_orders.breaks("/create-order", held)
    accepted = await stopping.job(body, Prefer="respond-async")
    await held.arrived()

    await stopping.driver.close(0.05)
    await other.driver.sweep()
    saga = await other.ended(accepted.json["saga_id"])
    held.let_go()

    assert saga["status"] == "SUCCEEDED"
    assert await shop.stock(body) == (8, 0)


async def test_a_replica_that_lost_its_saga_writes_nothing_more(shop: Shop) -> None:
    body = await shop.basket()
    zombie, other = await shop.replica(), await shop.replica()
    held = Held(done=True)
    shop.to_orders.breaks("/create-order", held)
    first = asyncio.create_task(zombie.job(body))
    await held.arrived()
    saga_id = (await zombie.only_saga())["id"]
    await zombie.lease_runs_out(saga_id)
    await other.driver.sweep()
    ended = await other.ended(saga_id)

    held.let_go()
    reply = await first

    assert ended["status"] == "SUCCEEDED"
    assert await zombie.saga(saga_id) == ended
    assert (reply.status, reply.body) == (201, (await other.job(body)).body)
    assert await shop.stock(body) == (8, 0)


async def test_a_watch_that_fails_once_nobody_waits_is_no_failure(
    orchestrator: Replica, log_lines: LogLines
) -> None:
    watch = orchestrator.driver.watch("none with this id")

    await asyncio.wait([watch])
    del watch
    gc.collect()

    assert [line for line in log_lines() if line["level"] == "error"] == []


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_a_saga_whose_database_was_away_goes_on_with_the_step_it_had_done(
    shop: Shop, make_settings: MakeSettings
) -> None:
    url = make_settings(Settings).sqlalchemy_url
    assert url.port is not None
    async with proxy("database", to(url.port), seed=1) as link:
        through = url.set(host=HOST, port=link.port).render_as_string(hide_password=False)
        orchestrator = await shop.replica(database_url=through)
        held = Held(done=True)
        shop.to_orders.breaks("/create-order", held)
        body = await shop.basket()
        first = asyncio.create_task(orchestrator.job(body))
        await held.arrived()

        link.faults = Faults(reset=1)
        held.let_go()
        async with asyncio.timeout(30):
            while link.struck < 3:  # noqa: ASYNC110 - there is no event for a second attempt to connect
                await asyncio.sleep(0.01)
        link.faults = NONE

        assert (await first).status == 201
        saga = await orchestrator.only_saga()
        assert steps_of(saga)[1] == ("create_order", "done", 1, None)
        assert saga["attempts"] == 1


async def test_a_saga_that_finds_the_pool_exhausted_goes_on_with_the_step_it_had_done(shop: Shop) -> None:
    orchestrator = await shop.replica(db_pool_size=1, db_pool_timeout=0.2, saga_lease=60)
    held = Held(done=True)
    shop.to_orders.breaks("/create-order", held)
    body = await shop.basket()
    pool = str(orchestrator.database.writers.pool.logging_name)
    exhausted = Sample("db_client_connection_timeouts_total", db_client_connection_pool_name=pool)
    first = asyncio.create_task(orchestrator.job(body))
    await held.arrived()

    taken, done = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        taken.set()
        await done.wait()

    holding = asyncio.create_task(orchestrator.database.transact(hold))
    await taken.wait()
    held.let_go()
    async with asyncio.timeout(30):
        while exhausted.moved < 2:  # noqa: ASYNC110 - there is no event for one who waits in vain
            await asyncio.sleep(0.01)
    done.set()
    await holding

    assert (await first).status == 201
    assert (await orchestrator.only_saga())["attempts"] == 1
