"""Limits that are off unless they are set: of one principal's pace, and of requests at once."""

import asyncio
import itertools

import pytest

from chassis.auth import limits
from chassis.auth.errors import RateExceeded
from chassis.auth.limits import RateLimit
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Reply, Serve, refused
from tests.databases import TOKEN
from tests.issuer import Issuer

SLOW = {"rate_limit": 0.01, "rate_burst": 3}
PATH = "/counters?limit=nonsense"
LET_IN = 400


async def _calls(client: Client, number: int, headers: dict[str, str]) -> list[Reply]:
    return [await client.get(PATH, headers=headers) for _ in range(number)]


async def test_of_one_principal_so_many_are_taken_and_others_do_not_notice(
    settings: Settings, issuer: Issuer, serve: Serve
) -> None:
    app = create_app(settings.model_copy(update=issuer.settings(**SLOW)))
    client = await serve(app)

    alice = await _calls(client, 5, issuer.bearer("counters:read"))
    bob = await _calls(client, 3, issuer.bearer("counters:read", sub="bob"))

    assert [reply.status for reply in alice] == [LET_IN] * 3 + [429] * 2
    assert [reply.status for reply in bob] == [LET_IN] * 3
    refused(alice[-1], 429, "limits.rate_exceeded")
    assert 90 < int(alice[-1].headers["Retry-After"]) <= 100
    assert (await client.get("/")).status == 200


async def test_without_authentication_all_callers_share_the_pace(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update=SLOW)))

    replies = await _calls(client, 4, {})

    assert [reply.status for reply in replies] == [LET_IN] * 3 + [429]


async def test_peers_are_not_held_up_by_the_pace_of_whom_they_call_for(
    settings: Settings, serve: Serve
) -> None:
    client = await serve(create_app(settings.model_copy(update=SLOW)))
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Principal": "https://id.example.com/%20alice"}

    replies = [await client.post("/counters/1/count", {}, headers=headers) for _ in range(6)]

    assert {reply.status for reply in replies} == {LET_IN}


async def test_no_limit_is_the_default(client: Client) -> None:
    replies = await asyncio.gather(*(client.get(PATH) for _ in range(60)))

    assert {reply.status for reply in replies} == {LET_IN}


def test_the_pace_is_kept_and_a_silence_is_credited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(limits, "monotonic", lambda: now)
    limit = RateLimit(per_second=2, burst=3)

    def taken(number: int) -> int:
        count = 0
        for _ in range(number):
            try:
                limit.take("alice")
            except RateExceeded:
                continue
            count += 1
        return count

    assert taken(10) == 3
    now += 0.4
    assert taken(10) == 0
    now += 0.1
    assert taken(10) == 1
    now += 100
    assert taken(10) == 3


def test_whoever_comes_memory_is_bounded_and_who_is_active_is_remembered() -> None:
    limit = RateLimit(per_second=0.001, burst=1)
    limit.take("alice")

    for number in range(3 * limits.MAX_PRINCIPALS):
        limit.take(f"stranger-{number}")
        if number % 1000 == 0:
            with pytest.raises(RateExceeded):
                limit.take("alice")

    assert len(limit._clear_at) == limits.MAX_PRINCIPALS  # noqa: SLF001 - what is bounded


async def test_requests_beyond_the_capacity_are_turned_away_and_room_is_given_back(
    settings: Settings, serve: Serve
) -> None:
    client = await serve(create_app(settings.model_copy(update={"max_requests": 2, "body_timeout": 5.0})))
    head = "POST /counters/1/count HTTP/1.1\r\nHost: x\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    waiting = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(2)]
    for _, writer in waiting:
        writer.write(head.encode())  # the body is yet to come
        await writer.drain()

    async with asyncio.timeout(10):
        for _ in itertools.count():
            full = await client.get(PATH)
            if full.status == 503:
                break
    refused(full, 503, "limits.at_capacity")
    assert full.headers["Retry-After"] == "1"
    assert (await client.get("/")).status == 200
    assert (await client.admin.get("/livez")).status == 200

    for reader, writer in waiting:
        writer.write(b"{}")
        assert b" 400 " in await reader.readline()
        writer.close()
    async with asyncio.timeout(10):
        while (await client.get(PATH)).status != LET_IN:  # noqa: ASYNC110 - nothing tells but the answer
            await asyncio.sleep(0.01)
