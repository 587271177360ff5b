import asyncio
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import DATABASE, Database
from chassis.errors import KeyInProgress, PeerUnavailable
from chassis.idempotency import KEYS
from chassis.idempotency import Key as IdempotencyKey
from chassis.idempotency.flights import HELD_AFTER_SECONDS, Flight, Flights
from tests.chassis.sample import FAILURES, GATE, Counter, Key, Settings, create_app, create_tables
from tests.client import HOST, Client, Reply, Serve, refused
from tests.databases import MakeSettings
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


# --- at once ------------------------------------------------------------------------------------


async def test_twins_in_flight_are_done_once_and_answered_alike(client: Client, app: web.Application) -> None:
    replies = await asyncio.gather(*(_count(client, "k-1") for _ in range(20)))

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert [_replayed(reply) for reply in replies].count(False) == 1
    assert await _value(app) == 2


async def test_the_first_request_does_its_work_also_if_it_prefers_not_to_wait_for_others(
    client: Client, app: web.Application
) -> None:
    headers = {"Idempotency-Key": "k-1", "Prefer": "wait=0"}
    app[GATE].clear()
    asking = asyncio.create_task(
        client.post("/counters/1/count", {"steps": [{"name": "step", "by": 2}]}, headers=headers)
    )
    await _in_flight(1)
    await asyncio.sleep(2 * HELD_AFTER_SECONDS)  # so long that it would be told to come back if it waited

    app[GATE].set()

    assert ((await asking).status, await _value(app)) == (200, 2)


@pytest.mark.parametrize("stated", [None, 5 * HELD_AFTER_SECONDS])
async def test_a_first_request_whose_key_takes_long_to_insert_is_nobodys_twin(stated: float | None) -> None:
    flights, working = Flights(), asyncio.Event()

    async def work(flight: Flight[str]) -> str:
        with flight.claiming():
            await asyncio.sleep(2 * HELD_AFTER_SECONDS)  # the database is busy
        await working.wait()
        return "done"

    asking = asyncio.create_task(
        flights.share(IdempotencyKey(b"s", b"k", b"f"), work, HELD_AFTER_SECONDS, stated)
    )
    await asyncio.wait({asking}, timeout=8 * HELD_AFTER_SECONDS)
    working.set()

    assert await asking == ("done", False)


async def test_requests_that_share_a_key_may_end_in_any_order() -> None:
    flights, failures = Flights(), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    ends = {name: asyncio.Event() for name in (b"first", b"other")}

    async def run(name: bytes) -> None:
        async def work(_flight: Flight[bool]) -> bool:
            return await ends[name].wait()

        await flights.share(IdempotencyKey(b"s", b"k", name), work, 60)

    running = {name: asyncio.create_task(run(name)) for name in ends}
    await asyncio.sleep(0)
    for name, end in ends.items():
        end.set()
        await running[name]
    await asyncio.sleep(0)

    assert (failures, len(flights)) == ([], 0)


async def test_a_twin_waits_no_longer_than_it_is_configured_to(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(Settings, join_timeout=0.1))
    client = await serve(app)
    await create_tables(app[DATABASE], c1=0)
    app[GATE].clear()
    first = asyncio.create_task(_count(client, "k-1"))
    await _in_flight(1)

    twin = await _count(client, "k-1", by=2)

    app[GATE].set()
    refused(twin, 409, "idempotency.in_progress")
    assert ((await first).status, await _value(app)) == (200, 2)


async def test_whoever_has_the_key_gets_the_answer_also_while_another_request_tries_it(
    client: Client, app: web.Application
) -> None:
    first = await _count(client, "k-1")

    replies = await asyncio.gather(
        *(_count(client, "k-1", by=by) for _ in range(5) for by in (3, 2)),
    )

    assert [reply.status for reply in replies] == [422, 200] * 5
    assert {reply.body for reply in replies[1::2]} == {first.body}
    assert await _value(app) == 2


async def test_who_goes_away_ends_no_work_and_harms_no_twin(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(Settings))
    # The services let handlers end whatever their clients do; other runners, and a shutdown, do not.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    await create_tables(app[DATABASE], c1=0)
    app[GATE].clear()

    try:
        async with aiohttp.ClientSession() as session:
            client = Client(session, runner.addresses[0][1])
            first = asyncio.create_task(_count(client, "k-1"))
            await _in_flight(1)
            twin = asyncio.create_task(_count(client, "k-1"))
            await _in_flight(2)
            first.cancel()
            await asyncio.wait({twin}, timeout=0.2)  # by then it has been noticed
            app[GATE].set()
            reply = await twin

        assert (reply.status, _replayed(reply)) == (200, True)
        assert await _value(app) == 2
        assert len(app[KEYS].flights) == 0
    finally:
        app[GATE].set()
        await runner.cleanup()


async def test_what_has_not_begun_its_transaction_is_given_up_when_the_service_stops() -> None:
    flights = Flights()
    began = asyncio.Event()

    async def work(_flight: object) -> None:
        began.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(flights.share(IdempotencyKey(b"scope", b"k-1", b"?"), work, 10))
    await began.wait()

    flights.close()

    with pytest.raises(KeyInProgress):
        await asking
    assert len(flights) == 0


class Elsewhere:
    """A request in another process that has the key `k-1`, does not end until `goes_on`, and then fails."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.ended: asyncio.Task[None]

    async def begins(self, database: Database) -> None:
        claimed = asyncio.Event()

        async def hold(session: AsyncSession) -> None:
            scope = b"anonymous POST /counters/{counter_id}/count"
            session.add(Key(scope=scope, key=b"k-1", fingerprint=b"?", created_at=dialects.now()))
            await session.flush()
            claimed.set()
            await self.goes_on.wait()
            raise PeerUnavailable("It fails.")

        self.ended = asyncio.create_task(database.transact(hold))
        await claimed.wait()


@only_mariadb
async def test_a_twin_of_a_request_in_another_process_that_does_not_end_is_told_to_come_back(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(Settings, db_lock_timeout=1, join_timeout=0.2))
    client, others = await serve(app), Database(make_settings(Settings))
    await create_tables(others, c1=0)
    in_progress = Sample("b2b_idempotency_total", service="sample", result="in_progress")
    elsewhere = Elsewhere()
    await elsewhere.begins(others)

    reply = await _count(client, "k-1")
    async with asyncio.timeout(30):
        while app[KEYS].flights:  # noqa: ASYNC110 - no event of ours to wait for
            await asyncio.sleep(0.02)
    elsewhere.goes_on.set()
    with pytest.raises(PeerUnavailable):
        await elsewhere.ended
    await others.close()

    problem = refused(reply, 409, "idempotency.in_progress")
    assert problem["retryable"]
    assert int(reply.headers["Retry-After"]) > 0
    assert await _value(app) == 0
    assert in_progress.moved == 1


@only_mariadb
async def test_a_twin_outwaits_the_lock_timeout_and_takes_the_place_of_a_request_that_fails_elsewhere(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(Settings, db_lock_timeout=1))
    client, others = await serve(app), Database(make_settings(Settings))
    await create_tables(others, c1=0)
    elsewhere = Elsewhere()
    await elsewhere.begins(others)

    twins = [asyncio.create_task(_count(client, "k-1")) for _ in range(5)]
    with statements_sent(app[DATABASE]) as sent:

        def one_waits_again() -> bool:
            return sum(statement.startswith("INSERT") for statement in sent) > 1

        while not (one_waits_again() or twins[0].done()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    connections = app[DATABASE].writers.pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
    elsewhere.goes_on.set()
    replies = await asyncio.gather(*twins)
    with pytest.raises(PeerUnavailable):
        await elsewhere.ended
    await others.close()

    assert connections == 1
    assert [reply.status for reply in replies] == [200] * 5
    assert sum(map(_replayed, replies)) == 4
    assert await _value(app) == 2


# --- what goes wrong ----------------------------------------------------------------------------


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


async def test_a_key_is_never_logged(client: Client, log_lines: LogLines) -> None:
    await _count(client, "k-of-a-caller")
    await _count(client, "k-of-a-caller", by=3)

    assert len(log_lines()) == 2
    assert "k-of-a-caller" not in str(log_lines())


async def test_keys_are_purged_in_batches(
    app: web.Application, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.idempotency.table.PURGE_BATCH", 2)
    for number in range(6):
        await _count(client, f"k-{number}", by=1)

    for number, days in enumerate((9, 8.5, 8, 7.5, 7.1, 6)):
        completed = {"completed_at": dialects.seconds_from_now(-days * 86_400)}
        its = update(Key).where(Key.key == f"k-{number}".encode()).values(completed)
        await app[DATABASE].transact(partial(AsyncSession.execute, statement=its))

    with statements_sent(app[DATABASE]) as sent:
        purged = await app[KEYS].purge(7)

    assert purged == 5
    assert len([statement for statement in sent if statement.startswith("DELETE")]) >= 3
    assert _replayed(await _count(client, "k-5", by=1))
    assert not _replayed(await _count(client, "k-4", by=1))
