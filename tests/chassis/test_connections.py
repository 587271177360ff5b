import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chassis.sample import Settings, create_app
from tests.client import HOST, Client, Serve, read_reply, refused

HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: sam"
HALF_A_BODY = (
    b"POST /counters/1/count HTTP/1.1\r\nHost: sample\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
WHOLE = b"GET / HTTP/1.1\r\nHost: sample\r\n\r\n"
WAIT_SECONDS = 20
ASSET = "/docs/swagger-ui-bundle.js"


@asynccontextmanager
async def connection(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, client.port)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield reader, writer
    finally:
        writer.close()


@pytest.fixture
def strict(settings: Settings) -> Settings:
    """Settings of a service that waits for almost nothing."""
    return settings.model_copy(update={"head_timeout": 0.1, "body_timeout": 60})


# --- heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "later"])
async def test_half_a_request_head_is_refused_after_a_while(
    strict: Settings, serve: Serve, before: bytes
) -> None:
    client = await serve(create_app(strict))

    async with connection(client) as (reader, writer):
        if before:
            writer.write(before)
            assert (await read_reply(reader)).status == 200
        writer.write(HALF_A_HEAD)
        reply = await read_reply(reader)
        rest = await reader.read()

    problem = refused(reply, 408, "request.head_timeout")
    assert problem["retryable"] is True
    assert rest == b""


async def test_a_head_whose_bytes_keep_coming_is_refused_all_the_same(strict: Settings, serve: Serve) -> None:
    client = await serve(create_app(strict))

    async with connection(client) as (reader, writer):
        answer = asyncio.create_task(read_reply(reader))
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)

        refused(await answer, 408, "request.head_timeout")


async def test_the_deadline_of_a_head_ends_with_the_head(strict: Settings, serve: Serve) -> None:
    client = await serve(create_app(strict))

    async with connection(client) as (reader, writer):
        for part in (HALF_A_BODY[:20], HALF_A_BODY[20:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        writer.write(b"}" * 99)

        refused(await read_reply(reader), 400, "request.malformed")


async def test_a_connection_may_wait_longer_between_requests(strict: Settings, serve: Serve) -> None:
    client = await serve(create_app(strict))

    async with connection(client) as (reader, writer):
        for _ in range(2):
            writer.write(WHOLE)
            assert (await read_reply(reader)).status == 200
            await asyncio.sleep(0.3)


# --- the number of connections ------------------------------------------------------------------


async def test_the_oldest_connection_that_waits_makes_room_for_a_new_one(
    settings: Settings, serve: Serve
) -> None:
    client = await serve(create_app(settings.model_copy(update={"max_connections": 3, "body_timeout": 60})))

    async with (
        connection(client) as (_, at_work),
        connection(client) as (oldest, first),
        connection(client) as (other, second),
    ):
        at_work.write(HALF_A_BODY)
        for reader, writer in ((oldest, first), (other, second)):
            writer.write(WHOLE)
            assert (await read_reply(reader)).status == 200
        async with connection(client) as (newest, third):
            third.write(WHOLE)
            assert (await read_reply(newest)).status == 200
            assert await oldest.read() == b""
            second.write(WHOLE)
            assert (await read_reply(other)).status == 200


async def test_half_a_head_makes_room_too(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update={"max_connections": 1, "head_timeout": 60})))

    async with connection(client) as (reader, writer):
        writer.write(HALF_A_HEAD)
        await asyncio.sleep(0.1)

        async with connection(client) as (newest, third):
            third.write(WHOLE)
            assert (await read_reply(newest)).status == 200
        assert await reader.read() == b""


async def test_with_all_connections_at_work_a_new_one_is_refused(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update={"max_connections": 1, "body_timeout": 60})))

    async with connection(client) as (reader, writer):
        writer.write(HALF_A_BODY)
        await asyncio.sleep(0.1)
        async with connection(client) as (newest, _):
            reply = await read_reply(newest)
            rest = await newest.read()
        writer.write(b"}" * 99)

        refused(reply, 503, "service.connections_exhausted")
        assert rest == b""
        refused(await read_reply(reader), 400, "request.malformed")


# --- answers ------------------------------------------------------------------------------------


async def test_a_connection_whose_answers_nobody_takes_is_cut_off(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings.model_copy(update={"body_timeout": 0.2})))
    size = len((await client.get(ASSET)).body)
    requests = 30
    taker = socket.socket()
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    taker.settimeout(0)  # never blocks
    loop = asyncio.get_running_loop()
    await loop.sock_connect(taker, (HOST, client.port))

    await loop.sock_sendall(taker, f"GET {ASSET} HTTP/1.1\r\nHost: sample\r\n\r\n".encode() * requests)
    await asyncio.sleep(1)
    taken = 0
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while received := len(await loop.sock_recv(taker, 65_536)):
                taken += received
    except ConnectionResetError:
        pass
    finally:
        taker.close()

    assert taken < requests * size


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(settings: Settings, serve: Serve) -> None:
    client = await serve(create_app(settings))
    size = len((await client.get(ASSET)).body)

    async with connection(client) as (reader, writer):
        writer.write(f"GET {ASSET} HTTP/1.1\r\nHost: sample\r\n\r\n".encode())
        await asyncio.sleep(0.5)
        reply = await read_reply(reader)

    assert len(reply.body) == size
