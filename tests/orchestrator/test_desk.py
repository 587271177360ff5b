"""One key, one saga, one answer, at whichever replica; `tests/idempotency` has what all keys share."""

import asyncio

import pytest

from tests.client import Reply, refused
from tests.observed import Sample, statements_sent
from tests.orchestrator.shop import Replica, Shop, not_ended, until
from tests.orchestrator.wire import Held

KEY_MEMBERS = ("success", "step", "compensated", "retry_needs_new_key")


def first_and_replays(replies: list[Reply]) -> tuple[Reply, list[Reply]]:
    """Assert that one of the replies is the first and the others are the same bytes; part them."""
    (first,) = [reply for reply in replies if "Idempotent-Replayed" not in reply.headers]
    replays = [reply for reply in replies if reply is not first]
    for replay in replays:
        assert replay.headers["Idempotent-Replayed"] == "true"
        assert (replay.status, replay.body) == (first.status, first.body)
        assert replay.headers["Location"] == first.headers["Location"]
        assert replay.headers["Content-Type"] == first.headers["Content-Type"]
    return first, replays


# --- replays ------------------------------------------------------------------------------------


async def test_the_same_order_written_otherwise_is_the_same_request(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket(qty=2)
    (item,) = body["items"]
    otherwise = {
        "purchase_order_number": None,
        "items": [{"qty": 1, "product_id": item["product_id"]}] * 2,
        "customer_id": body["customer_id"],
    }

    first_and_replays([await orchestrator.job(body), await orchestrator.job(otherwise)])

    assert len(await shop.all_orders()) == 1


# --- twins in flight ----------------------------------------------------------------------------


async def test_twins_of_a_refused_request_get_the_same_refusal(shop: Shop) -> None:
    body = await shop.basket(qty=11, stock=10)
    replicas = [await shop.replica(), await shop.replica()]

    replies = await asyncio.gather(*(replica.job(body) for _ in range(4) for replica in replicas))

    first, replays = first_and_replays(replies)
    assert (first.status, len(replays)) == (409, 7)
    assert first.json["code"] == "stock.insufficient"


async def test_a_twin_waits_for_the_answer_of_another_replica(shop: Shop) -> None:
    body = await shop.basket()
    one, other = await shop.replica(), await shop.replica()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(one.job(body))
    await held.arrived()

    with statements_sent(other.database) as sent:
        twin = asyncio.create_task(other.job(body))
        await until(both_are_in_flight)
        looks = len(sent)

        async def looked_again() -> bool:
            return len(sent) > looks + 1

        await until(looked_again)
        held.let_go()
        replies = [await first, await twin]

    first_and_replays(replies)
    assert [statement for statement in sent if "FOR UPDATE" in statement] == []
    assert len(shop.to_orders.calls) == len(["create", "confirm"])


async def both_are_in_flight() -> bool:
    return Sample("http_server_active_requests").value == 2


async def test_many_different_requests_at_once_make_an_order_each(shop: Shop) -> None:
    body = await shop.basket(qty=1, stock=12)
    replicas = [await shop.replica(), await shop.replica()]

    replies = await asyncio.gather(
        *(replicas[number % 2].job(body, key=f"key-{number}") for number in range(12))
    )

    assert [reply.status for reply in replies] == [201] * 12
    assert len(await shop.all_orders()) == 12
    assert await shop.stock(body) == (0, 0)


# --- patience -----------------------------------------------------------------------------------


async def test_a_twin_that_will_not_wait_is_told_that_the_key_is_in_progress(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(orchestrator.job(body))
    await held.arrived()

    twin = await orchestrator.job(body, Prefer="wait=0")

    problem = refused(twin, 409, "idempotency.in_progress", *KEY_MEMBERS, "saga_id", "saga")
    assert (problem["retryable"], problem["retry_needs_new_key"]) == (True, False)
    assert int(twin.headers["Retry-After"]) > 0
    assert twin.headers["Location"] == problem["saga"] == f"/orchestrator/sagas/{problem['saga_id']}"
    held.let_go()
    first_and_replays([await first, await orchestrator.job(body)])


async def test_a_twin_waits_no_longer_than_it_is_configured_to(shop: Shop) -> None:
    body = await shop.basket()
    one, other = await shop.replica(), await shop.replica(join_timeout=0.1)
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(one.job(body))
    await held.arrived()

    twin = await other.job(body)

    refused(twin, 409, "idempotency.in_progress", *KEY_MEMBERS, "saga_id", "saga")
    held.let_go()
    assert (await first).status == 201


@pytest.mark.parametrize("prefer", ["wait=0", "wait=60"])
async def test_who_starts_a_saga_and_cannot_wait_for_its_end_is_told_where_to_look(
    shop: Shop, prefer: str
) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(answer_timeout=0.1)
    held = Held()
    shop.to_customers.breaks(f"/customers/{body['customer_id']}", held)

    reply = await orchestrator.job(body, Prefer=prefer)

    problem = not_ended(reply, "saga.unfinished", step="validate_customer")
    held.let_go()
    assert (await orchestrator.ended(problem["saga_id"]))["status"] == "SUCCEEDED"
    replay = await orchestrator.job(body)
    assert (replay.status, replay.headers["Idempotent-Replayed"]) == (201, "true")


# --- Prefer: respond-async ----------------------------------------------------------------------


async def test_who_prefers_not_to_wait_is_told_where_the_saga_is(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()

    reply = await orchestrator.job(body, Prefer="respond-async", X_Correlation_Id="req-456")

    assert reply.status == 202
    saga_id = reply.json["saga_id"]
    assert reply.json == {"success": None, "correlation_id": "req-456", "saga_id": saga_id}
    assert reply.headers["Location"] == f"/orchestrator/sagas/{saga_id}"
    saga = await orchestrator.ended(saga_id)
    assert (saga["status"], saga["correlation_id"]) == ("SUCCEEDED", "req-456")
    assert (await shop.only_order())["correlation_id"] == "req-456"


async def test_the_answer_of_an_asynchronous_saga_is_there_for_its_key(
    shop: Shop, orchestrator: Replica
) -> None:
    body = await shop.basket()
    accepted = await orchestrator.job(body, Prefer="respond-async")
    await orchestrator.ended(accepted.json["saga_id"])

    for prefer in ("wait=10", "respond-async"):
        reply = await orchestrator.job(body, Prefer=prefer)

        assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")
        assert reply.json["saga_id"] == accepted.json["saga_id"]


async def test_a_twin_may_prefer_not_to_wait(shop: Shop, orchestrator: Replica) -> None:
    body = await shop.basket()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(orchestrator.job(body))
    await held.arrived()

    twin = await orchestrator.job(body, Prefer="respond-async")

    assert twin.status == 202
    held.let_go()
    assert (await first).json["saga_id"] == twin.json["saga_id"]
    assert twin.headers["Location"] == (await first).headers["Location"]


# --- while there is no answer -------------------------------------------------------------------


async def test_repeating_the_key_continues_a_saga_that_waits_for_a_peer(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True
    unfinished = await orchestrator.job(body)
    shop.to_orders.down = False

    reply = await orchestrator.job(body)

    problem = not_ended(unfinished, "saga.unfinished", step="create_order")
    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")
    assert reply.json["saga_id"] == problem["saga_id"]
    assert (await orchestrator.saga(problem["saga_id"]))["attempts"] == 1


async def test_repeating_the_key_at_another_replica_continues_the_saga_there(shop: Shop) -> None:
    body = await shop.basket()
    one, other = await shop.replica(peer_deadline=0.1), await shop.replica()
    shop.to_orders.down = True
    await one.job(body)
    shop.to_orders.down = False

    reply = await other.job(body)

    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")
    assert len(await shop.all_orders()) == 1


async def test_a_saga_that_is_continued_keeps_the_correlation_id_it_began_with(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True
    await orchestrator.job(body, X_Correlation_Id="req-1")
    shop.to_orders.down = False

    reply = await orchestrator.job(body, X_Correlation_Id="req-2")

    assert reply.json["correlation_id"] == "req-1"
    assert (await shop.only_order())["correlation_id"] == "req-1"


async def test_repeating_the_key_while_the_peer_is_still_down_is_told_so_again(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1)
    shop.to_orders.down = True

    replies = [await orchestrator.job(body) for _ in range(2)]

    sagas = [not_ended(reply, "saga.unfinished", step="create_order")["saga_id"] for reply in replies]
    assert sagas[0] == sagas[1]


async def test_a_saga_that_needs_attention_says_so_at_once(shop: Shop) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1, saga_attempts=1, join_timeout=60)
    shop.to_orders.down = True
    saga_id = (await orchestrator.job(body)).json["saga_id"]
    await orchestrator.lease_runs_out(saga_id)
    await orchestrator.driver.sweep()
    await orchestrator.stopped_working()

    async with asyncio.timeout(50):
        reply = await orchestrator.job(body)

    not_ended(reply, "saga.needs_attention", step="create_order")


async def test_a_saga_whose_replica_fell_silent_is_continued_by_who_repeats_its_key(shop: Shop) -> None:
    body = await shop.basket()
    silent, other = await shop.replica(), await shop.replica()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(silent.job(body))
    await held.arrived()
    await silent.lease_runs_out((await silent.only_saga())["id"])

    reply = await other.job(body)

    assert (reply.status, reply.headers["Idempotent-Replayed"]) == (201, "true")
    held.let_go()
    first_and_replays([await first, reply])
