import asyncio
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import DATABASE, Database
from chassis.errors import PeerUnavailable
from chassis.idempotency import KEYS
from tests.chassis.sample import FAILURES, GATE, Counter, Key, Settings, create_app, create_tables
from tests.client import Client, Reply, Serve, refused
from tests.databases import MakeSettings, on_database
from tests.observed import LogLines, Sample, statements_sent

only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)


@pytest.fixture
async def app(make_settings: MakeSettings) -> web.Application:
    return create_app(make_settings(Settings))


@pytest.fixture
async def client(app: web.Application, serve: Serve) -> Client:
    """A service with the counters 1 and 2 at zero, and 3 almost full."""
    client = await serve(app)
    await create_tables(app[DATABASE], c1=0, c2=0, c3=99)
    return client


async def _count(client: Client, key: str | None = None, counter: int = 1, by: int = 2, **body: Any) -> Reply:
    headers = {} if key is None else {"Idempotency-Key": key}
    steps = {"steps": [{"name": "step", "by": by}]}
    return await client.post(f"/counters/{counter}/count", {**steps, **body}, headers=headers)


async def _value(app: web.Application, counter: int = 1) -> int:
    async with app[DATABASE].read() as session:
        return (await session.scalars(select(Counter.value).where(Counter.id == counter))).one()


async def _in_flight(requests: int) -> None:
    """Wait until so many requests have come."""
    active = Sample("http_server_active_requests")
    async with asyncio.timeout(30):
        while active.value < requests:  # noqa: ASYNC110 - no event of ours to wait for
            await asyncio.sleep(0.02)


def _replayed(reply: Reply) -> bool:
    return reply.headers.get("Idempotent-Replayed") == "true"


# --- the same request again ---------------------------------------------------------------------


async def test_without_a_key_a_request_is_done_each_time(client: Client, app: web.Application) -> None:
    await _count(client)
    await _count(client)

    assert await _value(app) == 4


async def test_the_same_key_and_request_is_done_once_and_answered_alike(
    client: Client, app: web.Application
) -> None:
    executed = Sample("b2b_idempotency_total", service="sample", result="executed")
    replayed = Sample("b2b_idempotency_total", service="sample", result="replayed")

    first, second = await _count(client, "k-1"), await _count(client, "k-1")

    assert (first.status, _replayed(first)) == (200, False)
    assert (second.status, _replayed(second)) == (200, True)
    assert second.body == first.body
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert await _value(app) == 2
    assert (executed.moved, replayed.moved) == (1, 1)


async def test_a_replay_is_one_read(client: Client, app: web.Application) -> None:
    await _count(client, "k-1")

    with statements_sent(app[DATABASE]) as statements:
        await _count(client, "k-1")

    assert [statement.split()[0] for statement in statements] == ["SELECT"]


async def test_a_replay_tells_what_was_and_changes_nothing(client: Client, app: web.Application) -> None:
    first = await _count(client, "k-1")
    await client.post("/counters/1/reset", headers={"Idempotency-Key": "k-2"})

    again = await _count(client, "k-1")

    assert again.body == first.body
    assert await _value(app) == 0


async def test_a_key_means_the_same_wherever_it_is_given(client: Client, app: web.Application) -> None:
    steps = {"steps": [{"name": "step", "by": 2}]}
    path = "/counters/1/count"

    replies = [
        await client.post(path, steps, headers={"Idempotency-Key": "k-1"}),
        await client.post(path, steps, headers={"X-Idempotency-Key": "k-1"}),
        await client.post(path, {**steps, "idempotency_key": "k-1"}),
        await client.post(path, steps, headers={"Idempotency-Key": '"k-1"'}),
        await client.post(path, {**steps, "idempotency_key": "k-1"}, headers={"Idempotency-Key": '"k-1"'}),
    ]

    assert [_replayed(reply) for reply in replies] == [False, True, True, True, True]
    assert await _value(app) == 2


async def test_the_order_of_members_and_defaults_make_no_other_request(client: Client) -> None:
    await client.request(
        "POST",
        "/counters/1/count",
        data='{"steps":[{"name":"step","by":2}]}',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json"},
    )

    again = await client.request(
        "POST",
        "/counters/1/count",
        data='{ "comment": null, "steps": [ {"by": 2, "name": "step"} ] }',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json; charset=utf-8"},
    )

    assert _replayed(again)


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", " ", '""', "two words", "tab\there", "ümlaut", "x" * 256, "\x7f"])
async def test_a_key_that_is_not_visible_ascii_is_refused(
    client: Client, app: web.Application, key: str
) -> None:
    reply = await _count(client, None, idempotency_key=key)

    problem = refused(reply, 400, "idempotency.key_invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["#/idempotency_key"]
    assert await _value(app) == 0


@pytest.mark.parametrize("key", ["x", "x" * 255, "!~{}'\"`;--%_\\"])
async def test_a_key_may_be_any_visible_ascii(client: Client, app: web.Application, key: str) -> None:
    replies = [await _count(client, key), await _count(client, key)]

    assert [_replayed(reply) for reply in replies] == [False, True]
    assert await _value(app) == 2


async def test_keys_are_compared_byte_by_byte(client: Client, app: web.Application) -> None:
    replies = [await _count(client, key) for key in ("key-1", "Key-1", "key-1.", "key-")]

    assert [_replayed(reply) for reply in replies] == [False] * 4
    assert await _value(app) == 8


async def test_two_keys_that_differ_are_refused(client: Client, app: web.Application) -> None:
    reply = await _count(client, "k-1", idempotency_key="k-2")

    problem = refused(reply, 400, "idempotency.key_invalid")
    pointers = [error["pointer"] for error in problem["errors"]]
    assert pointers == ["header:Idempotency-Key", "#/idempotency_key"]
    assert await _value(app) == 0


# --- another request ----------------------------------------------------------------------------


async def test_a_key_of_another_request_is_refused_and_nothing_done(
    client: Client, app: web.Application
) -> None:
    reused = Sample("b2b_idempotency_total", service="sample", result="reused")
    await _count(client, "k-1")

    other_body = await _count(client, "k-1", by=3)
    other_path = await _count(client, "k-1", counter=2)

    refused(other_body, 422, "idempotency.key_reused", "retry_needs_new_key")
    refused(other_path, 422, "idempotency.key_reused", "retry_needs_new_key")
    assert (await _value(app), await _value(app, 2)) == (2, 0)
    assert reused.moved == 2


async def test_a_key_belongs_to_one_operation(client: Client, app: web.Application) -> None:
    await _count(client, "k-1")

    reset = await client.post("/counters/1/reset", headers={"Idempotency-Key": "k-1"})

    assert (reset.status, _replayed(reset)) == (200, False)
    assert await _value(app) == 0


# --- at once ------------------------------------------------------------------------------------


async def test_twins_in_flight_are_done_once_and_answered_alike(client: Client, app: web.Application) -> None:
    replies = await asyncio.gather(*(_count(client, "k-1") for _ in range(20)))

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert [_replayed(reply) for reply in replies].count(False) == 1
    assert await _value(app) == 2


async def test_of_different_requests_in_flight_with_one_key_one_is_done(
    client: Client, app: web.Application
) -> None:
    replies = await asyncio.gather(*(_count(client, "k-1", by=by) for by in range(1, 10)))

    statuses = sorted(reply.status for reply in replies)
    assert statuses == [200] + [422] * 8
    [done] = [reply for reply in replies if reply.status == 200]
    assert await _value(app) == done.json["data"]["value"]


@only_mariadb
async def test_a_twin_of_a_request_that_does_not_end_is_told_to_come_back(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(Settings, db_lock_timeout=1))
    client, others = await serve(app), Database(make_settings(Settings))
    await create_tables(others, c1=0)
    claimed, release = asyncio.Event(), asyncio.Event()
    in_progress = Sample("b2b_idempotency_total", service="sample", result="in_progress")

    async def hold(session: AsyncSession) -> None:
        row = {"scope": b"anonymous POST /counters/{counter_id}/count", "key": b"k-1", "fingerprint": b"?"}
        session.add(Key(**row, created_at=dialects.now()))
        await session.flush()
        claimed.set()
        await release.wait()

    holding = asyncio.create_task(others.transact(hold))
    await claimed.wait()
    reply = await _count(client, "k-1")
    release.set()
    await holding
    await others.close()

    problem = refused(reply, 409, "idempotency.in_progress")
    assert problem["retryable"]
    assert int(reply.headers["Retry-After"]) > 0
    assert await _value(app) == 0
    assert in_progress.moved == 1


# --- what goes wrong ----------------------------------------------------------------------------


async def test_an_invalid_request_leaves_its_key_free(client: Client, app: web.Application) -> None:
    refused(await _count(client, "k-1", by=0), 400, "request.invalid")

    reply = await _count(client, "k-1")

    assert (reply.status, _replayed(reply)) == (200, False)
    assert await _value(app) == 2


@pytest.mark.parametrize(
    ("counter", "status", "code"), [(3, 409, "counter.full"), (4, 404, "counter.not_found")]
)
async def test_a_business_refusal_is_final(
    client: Client, app: web.Application, counter: int, status: int, code: str
) -> None:
    refusals = Sample("b2b_idempotency_total", service="sample", result="refused")

    first = await _count(client, "k-1", counter=counter)
    await create_tables(app[DATABASE], **({"c4": 0} if counter == 4 else {}))
    await client.post("/counters/3/reset", headers={"Idempotency-Key": "k-2"})
    again = await _count(client, "k-1", counter=counter)
    anew = await _count(client, "k-3", counter=counter)

    problem = refused(first, status, code, "retry_needs_new_key")
    assert problem["retry_needs_new_key"] is True
    assert (again.status, again.body, _replayed(again)) == (status, first.body, True)
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert anew.status == 200
    assert refusals.moved == 1


@pytest.mark.parametrize(
    ("failure", "status"), [(RuntimeError("a bug"), 500), (PeerUnavailable("It is down."), 503)]
)
async def test_a_failure_undoes_everything_and_leaves_its_key_free(
    client: Client, app: web.Application, failure: Exception, status: int
) -> None:
    app[FAILURES].append(failure)

    failed = await _count(client, "k-1")
    value = await _value(app)
    reply = await _count(client, "k-1")

    assert (failed.status, value) == (status, 0)
    assert (reply.status, _replayed(reply)) == (200, False)
    assert await _value(app) == 2


async def test_twins_of_a_request_that_fails_share_its_failure_and_the_next_one_tries_anew(
    client: Client, app: web.Application
) -> None:
    app[FAILURES].append(RuntimeError("a bug"))
    app[GATE].clear()
    waiting = [asyncio.create_task(_count(client, "k-1")) for _ in range(10)]
    await _in_flight(10)

    app[GATE].set()
    replies = await asyncio.gather(*waiting)
    value = await _value(app)
    reply = await _count(client, "k-1")

    assert ([reply.status for reply in replies], value) == ([500] * 10, 0)
    assert (reply.status, _replayed(reply)) == (200, False)
    assert await _value(app) == 2


async def test_without_the_store_nothing_is_done(serve: Serve) -> None:
    settings = Settings(**on_database("mysql://root@127.0.0.1:1/nothing"))
    client = await serve(create_app(settings))

    refused(await _count(client, "k-1"), 503, "db.unavailable")


# --- forgetting ---------------------------------------------------------------------------------


async def test_finished_keys_are_forgotten_after_their_days_and_unfinished_never(
    client: Client, app: web.Application
) -> None:
    keys = app[KEYS]
    await _count(client, "k-1")

    async def begin(session: AsyncSession) -> None:
        session.add(Key(scope=b"scope", key=b"unfinished", fingerprint=b"?", created_at=dialects.now()))

    await app[DATABASE].transact(begin)
    young = await keys.purge(1)
    old = await keys.purge(-1)
    reply = await _count(client, "k-1")

    assert (young, old) == (0, 1)
    assert (reply.status, _replayed(reply)) == (200, False)
    assert await _value(app) == 4
    async with app[DATABASE].read() as session:
        assert (await session.scalars(select(Key.key).where(Key.status.is_(None)))).all() == [b"unfinished"]


async def test_a_key_is_never_logged(client: Client, log_lines: LogLines) -> None:
    await _count(client, "k-of-a-caller")
    await _count(client, "k-of-a-caller", by=3)

    assert len(log_lines()) == 2
    assert "k-of-a-caller" not in str(log_lines())
