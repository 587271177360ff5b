"""The lines of the contract of idempotency keys, for every operation that takes one, on both databases."""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis import dialects
from chassis.http import SETTINGS
from orchestrator.driver import DRIVER
from orchestrator.models import IdempotencyKey as SagaKey
from orders.models import IdempotencyKey as OrderKey
from tests.client import Reply
from tests.databases import on_database
from tests.idempotency.system import (
    OPERATIONS,
    ConfirmOrder,
    CreateAndConfirmOrder,
    Operation,
    Request,
    System,
    in_flight,
    is_marked,
    is_replay,
)
from tests.observed import Sample, statements_sent
from tests.orchestrator.shop import until
from tests.serving import sockets

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWINS = 8


def problem(reply: Reply, status: int, code: str) -> Any:
    assert (reply.status, reply.json["code"]) == (status, code), reply.text
    return reply.json


def with_key(request: Request, key: str, **fields: str) -> Request:
    """The request with the key in its body."""
    return Request(request.path, {**(request.body or {}), "idempotency_key": key, **fields})


# --- the key ------------------------------------------------------------------------------------


async def test_the_key_comes_in_the_header_the_x_header_or_the_body_quoted_or_bare(
    operation: Operation,
) -> None:
    first = await operation.send()
    after = await operation.state()

    again = [
        await operation.send(Idempotency_Key=f'"{operation.key}"'),
        await operation.send(X_Idempotency_Key=operation.key),
        await operation.send(with_key(operation.first, operation.key), key=""),
        await operation.send(
            with_key(operation.first, f'"{operation.key}"'), X_Idempotency_Key=operation.key
        ),
    ]

    assert first.status == operation.status, first.text
    assert all(is_replay(reply, of=first) for reply in again)
    assert await operation.state() == after
    assert await operation.effect() == operation.once


async def test_two_keys_that_differ_are_refused_with_400(operation: Operation) -> None:
    before, key = await operation.state(), operation.key

    replies = [
        await operation.send(Idempotency_Key=key, X_Idempotency_Key="other"),
        await operation.send(with_key(operation.first, "other"), Idempotency_Key=key),
        await operation.send(with_key(operation.first, "other"), X_Idempotency_Key=key),
    ]

    for reply in replies:
        assert len(problem(reply, 400, "idempotency.key_invalid")["errors"]) == 2
    assert await operation.state() == before


async def test_a_key_has_1_to_255_visible_ascii_characters(operation: Operation) -> None:
    before, longest = await operation.state(), operation.key.ljust(255, "~")

    bad = [
        await operation.send(Idempotency_Key=key) for key in (longest + "~", "two words", '""', "schlüssel")
    ]
    unchanged = await operation.state() == before
    first = await operation.send(Idempotency_Key=longest)

    for reply in bad:
        problem(reply, 400, "idempotency.key_invalid")
    assert unchanged
    assert first.status == operation.status
    assert is_replay(await operation.send(Idempotency_Key=longest), of=first)


async def test_keys_are_compared_as_bytes(operation: Operation) -> None:
    await operation.send()

    for key in (operation.key.upper(), f"{operation.key}.", f"'{operation.key}'", operation.key[:-1]):
        assert not is_marked(await operation.send(key=key)), key


async def test_a_key_is_of_one_route(system: System) -> None:
    opened = [kind(system) for kind in OPERATIONS.values()]
    for operation in opened:
        await operation.open()

    replies = [await operation.send(key="the-same-for-all") for operation in opened]

    assert [reply.status for reply in replies] == [operation.status for operation in opened]
    assert not any(map(is_marked, replies))


async def test_the_fingerprint_leaves_out_the_key_and_the_correlation_id(operation: Operation) -> None:
    first = await operation.send(X_Correlation_Id="one")
    in_body = {"correlation_id": "three"} if isinstance(operation, CreateAndConfirmOrder) else {}

    again = await operation.send(with_key(operation.first, operation.key, **in_body), X_Correlation_Id="two")

    assert is_replay(again, of=first)
    assert again.headers["X-Correlation-Id"] == "two"


# --- the same request ---------------------------------------------------------------------------


async def test_done_is_answered_with_the_first_status_bytes_and_location(operation: Operation) -> None:
    replayed = Sample("b2b_idempotency_total", service=operation.service, result="replayed")
    first = await operation.send()
    after = await operation.state()

    again = [await operation.send(at=at) for at in (0, 1, 0)]

    assert (first.status, is_marked(first)) == (operation.status, False)
    assert all(is_replay(reply, of=first) for reply in again)
    assert await operation.state() == after
    assert await operation.effect() == operation.once
    assert replayed.moved == 3


async def test_a_replay_costs_one_indexed_read(operation: Operation) -> None:
    await operation.send()
    database = operation.replicas[0].database

    with statements_sent(database) as sent:
        assert is_marked(await operation.send())

    ((scope, _, _),) = await operation.kept()
    async with database.readers.connect() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        explain = ("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + sent[0]
        plan = (await connection.exec_driver_sql(explain, (scope, operation.key.encode()))).mappings().all()
    assert len(sent) == 1, sent
    (step,) = plan
    if is_sqlite:
        assert step["detail"].startswith(f"SEARCH {operation.table} USING INDEX")
        assert step["detail"].endswith("(scope=? AND key=?)")
    else:
        how = (step["table"], step["type"], step["key"], int(step["rows"]))
        assert how == (operation.table, "const", "PRIMARY", 1)


async def test_in_flight_twins_attach_to_the_first_and_get_the_same_bytes(operation: Operation) -> None:
    database = operation.replicas[0].database

    with statements_sent(database) as sent:
        async with operation.system.held(operation.product_id):
            twins = [asyncio.create_task(operation.send()) for _ in range(TWINS)]
            await in_flight(TWINS)
            connections = database.writers.pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
        replies = await asyncio.gather(*twins)

    first, *others = sorted(replies, key=is_marked)
    assert (first.status, is_marked(first)) == (operation.status, False)
    assert all(is_replay(reply, of=first) for reply in others)
    assert await operation.effect() == operation.once
    assert connections <= 1
    of_keys = [statement.split()[0] for statement in sent if operation.table in statement]
    assert of_keys.count("INSERT") == 1
    assert of_keys.count("UPDATE") == 1
    assert len(operation.replicas[0].keys.flights) == 0


async def test_in_flight_at_another_replica_twins_get_the_same_bytes(operation: Operation) -> None:
    async with operation.system.held(operation.product_id):
        twins = [asyncio.create_task(operation.send(at=number % 2)) for number in range(TWINS)]
        await in_flight(TWINS)
        connections = [replica.database.writers.pool.checkedout() for replica in operation.replicas]  # type: ignore[attr-defined]  # of a QueuePool
    replies = await asyncio.gather(*twins)

    first, *others = sorted(replies, key=is_marked)
    assert (first.status, is_marked(first)) == (operation.status, False), first.text
    assert all(is_replay(reply, of=first) for reply in others)
    assert await operation.effect() == operation.once
    assert max(connections) <= 1


@pytest.mark.parametrize("at", [0, 1], ids=["here", "at-another-replica"])
async def test_in_flight_a_twin_that_prefers_not_to_wait_gets_409_and_retry_after(
    operation: Operation, at: int
) -> None:
    async with operation.system.held(operation.product_id):
        first = asyncio.create_task(operation.send())
        await until(lambda: works_on(operation))

        twin = await operation.send(at=at, Prefer="wait=0")

    assert problem(twin, 409, "idempotency.in_progress")["retryable"] is True
    assert int(twin.headers["Retry-After"]) > 0
    reply = await first
    assert reply.status == operation.status
    assert is_replay(await operation.send(at=at), of=reply)


async def works_on(operation: Operation) -> bool:
    """Whether the first replica is at work for the operation."""
    replica = operation.replicas[0]
    if operation.service == "orchestrator":
        return bool(replica.app[DRIVER]._running)  # noqa: SLF001 - nothing outside tells
    return len(replica.keys.flights) > 0


# --- another request ----------------------------------------------------------------------------


async def test_another_request_with_the_key_is_refused_with_422_and_nothing_executed(
    operation: Operation,
) -> None:
    first = await operation.send()
    after = await operation.state()

    others = [await operation.send(other, at=at) for other in operation.others for at in (0, 1)]

    for reply in others:
        assert problem(reply, 422, "idempotency.key_reused")["retry_needs_new_key"] is True
    assert await operation.state() == after
    assert is_replay(await operation.send(), of=first)


async def test_another_request_is_refused_with_422_also_while_the_first_is_in_flight(
    operation: Operation,
) -> None:
    async with operation.system.held(operation.product_id):
        first = asyncio.create_task(operation.send())
        await until(lambda: works_on(operation))

        others = [await operation.send(other) for other in operation.others]

        assert not first.done()
    for reply in others:
        problem(reply, 422, "idempotency.key_reused")
    assert (await first).status == operation.status
    assert is_replay(await operation.send(), of=await first)


# --- what is stored -----------------------------------------------------------------------------


async def test_400_413_and_415_are_not_stored_and_leave_the_key_free(operation: Operation) -> None:
    client, key = operation.replicas[0].client, {"Idempotency-Key": operation.key}
    path, body = operation.first.path, b'{"surprise": true}'
    as_json = key | {"Content-Type": "application/json"}

    bad = [
        await operation.send(operation.bad),
        await client.request("POST", path, data=body, headers=as_json),
        await client.request("POST", path, data=body[:-1], headers=as_json),
        await client.request("POST", path, data=BytesIO(b" " * 1_048_577), headers=as_json),
        await client.request("POST", path, data=body, headers=key | {"Content-Type": "text/plain"}),
    ]
    kept = await operation.kept()
    first = await operation.send()

    assert [reply.status for reply in bad] == [400, 400, 400, 413, 415]
    assert kept == []
    assert (first.status, is_marked(first)) == (operation.status, False)


async def test_a_business_refusal_is_stored_as_final_and_says_that_a_retry_needs_a_new_key(
    operation: Operation,
) -> None:
    refusals = await operation.refusals()
    firsts = [await operation.send(request, key=f"{operation.key}-{status}") for status, request in refusals]
    more = f"/admin/products/{operation.product_id}/adjust-stock"
    await operation.system.orders[0].client.post(more, {"delta": 100, "reason": "Delivered"})

    again = [await operation.send(request, key=f"{operation.key}-{status}") for status, request in refusals]

    assert [first.status for first in firsts] == [404, 409]
    assert [first.json["retry_needs_new_key"] for first in firsts] == [True, True]
    assert all(is_replay(reply, of=first) for reply, first in zip(again, firsts, strict=True))


async def test_5xx_is_never_final_and_the_same_key_continues_the_work(operation: Operation) -> None:
    before = await operation.state()

    async with operation.system.broken():
        failed = [await operation.send(at=at) for at in (0, 1)]
        unchanged = await operation.state() == before
    reply = await operation.send()

    assert {reply.status for reply in failed} <= {500, 503}
    assert unchanged
    assert reply.status == operation.status
    assert is_replay(await operation.send(at=1), of=reply)


async def test_a_new_key_on_an_order_that_is_confirmed_is_refused_and_its_stock_untouched(
    system: System,
) -> None:
    operation = ConfirmOrder(system)
    await operation.open()
    await operation.send()
    after = await operation.state()

    reply = await operation.send(key=f"{operation.key}-new")

    assert problem(reply, 409, "order.not_confirmable")["retry_needs_new_key"] is True
    assert await operation.state() == after


async def test_a_replay_after_the_order_moved_on_is_the_original_answer_and_changes_nothing(
    operation: Operation,
) -> None:
    first = await operation.send()
    await operation.move_on()
    after = await operation.state()

    again = await operation.send()

    assert is_replay(again, of=first)
    assert await operation.state() == after


# --- the end of a key ---------------------------------------------------------------------------


async def test_a_key_expires_7_days_after_its_completion(operation: Operation) -> None:
    keys = operation.replicas[0].keys
    days = operation.replicas[0].app[SETTINGS].idempotency_days
    first = await operation.send()

    await operation.set_age(6.99)
    young = await keys.purge(days)
    still_known = await operation.send()
    await operation.set_age(7.01)
    old = await keys.purge(days)

    assert (young, old) == (0, 1)
    assert is_replay(still_known, of=first)
    assert await operation.kept() == []
    assert not is_marked(await operation.send())


async def test_an_unfinished_key_never_expires(operation: Operation) -> None:
    table = SagaKey if operation.service == "orchestrator" else OrderKey
    values = {"scope": b"scope", "key": operation.key.encode(), "fingerprint": b"?"}
    begun = insert(table).values(**values, created_at=dialects.seconds_from_now(-365 * 86_400))
    database = operation.replicas[0].database
    await database.transact(lambda session: session.execute(begun))

    await operation.replicas[0].keys.purge(7)

    assert len(await operation.kept()) == 1


async def test_with_the_store_down_the_answer_is_503_and_nothing_is_executed(
    operation: Operation, backend: str, tmp_path: Path
) -> None:
    before = await operation.state()
    nowhere = {"sqlite": f"sqlite:///{tmp_path}", "mariadb": "mysql://root@127.0.0.1:1/nothing"}[backend]
    told = on_database(nowhere) | {"customers_api_base": operation.system.customers.url}
    if operation.service == "orders":
        app = orders.app.create_app(orders.settings.Settings(**told))
    else:
        told |= {"orders_api_base": operation.system.orders[0].client.url}
        app = orchestrator.app.create_app(orchestrator.settings.Settings(**told))

    async with sockets() as serve:
        key = {"Idempotency-Key": operation.key}
        client = await serve(app)
        down = await client.post(operation.first.path, operation.first.body, headers=key)

    problem(down, 503, "db.unavailable")
    assert int(down.headers["Retry-After"]) > 0
    assert await operation.state() == before
    assert (await operation.send()).status == operation.status
