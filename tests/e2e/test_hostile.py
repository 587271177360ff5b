"""Clients that mean harm, against a service in a process of its own.

During each attack another client makes ordinary calls, each on a new connection: all of them have to be
answered. Afterwards the connections have to be gone and the memory has to be what it was, but for what
the limits allow: 800 connections with a body of 64 KiB each, and about as much again around them.
"""

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from orders.settings import Settings
from tests.client import HOST, Client, Reply, read_reply, refused
from tests.databases import SQLite
from tests.processes import serving, variables

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1_048_576
MAX_GROWTH = 100 * MIB
MANY = 500
WAIT_SECONDS = 60
CREATE = "/admin/products/create-product"
READ = "/admin/products/find-all?limit=1"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
POST = f"POST {CREATE} HTTP/1.1\r\nHost: orders\r\n".encode() + JSON
GET = b"GET / HTTP/1.1\r\nHost: orders\r\n"


@dataclass
class Service:
    """The process under attack."""

    client: Client
    pid: int
    memory: int = 0
    descriptors: int = 0
    served: list[int] = field(default_factory=list)

    def look(self) -> tuple[int, int]:
        """Bytes of memory and open descriptors."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize(), len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @asynccontextmanager
    async def unharmed(self) -> AsyncIterator[None]:
        """Serve a good client during the block, and be as before after it."""
        self.served.clear()
        self.memory, self.descriptors = self.look()
        caller = asyncio.create_task(self._good_client())
        try:
            yield
            before = len(self.served)
            async with asyncio.timeout(WAIT_SECONDS):
                while len(self.served) < before + 3 and not caller.done():  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
        finally:
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
        if not caller.cancelled():
            caller.result()
        assert set(self.served) == {200}
        async with asyncio.timeout(WAIT_SECONDS):  # two of them may be the good client's last
            while self.look()[1] > self.descriptors + 2:  # noqa: ASYNC110 - only a look tells
                await asyncio.sleep(0.05)
        assert self.look()[0] - self.memory < MAX_GROWTH

    async def _good_client(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while True:
                async with session.get(self.client.url + READ) as response:
                    await response.read()
                    self.served.append(response.status)
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(sqlite: SQLite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """The orders service, with its limits but for shorter deadlines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))  # the attackers' own
    url = sqlite.fresh(Settings, tmp_path_factory.mktemp("hostile"))
    given = variables(url, head_timeout=1, body_timeout=1, log_format="json")
    async with serving("orders", given) as process, aiohttp.ClientSession() as session:
        port, _ = await process.ports()
        client = Client(session, port)
        for _ in range(20):  # what is loaded at first use is there before anything is measured
            assert (await client.get(READ)).status == 200
        yield Service(client, process.pid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def sent(service: Service, *pieces: bytes, pause: float = 0) -> Reply:
    """Send these pieces on a connection of their own; return the answer, once the connection is closed."""
    reader, writer = await asyncio.open_connection(HOST, service.client.port)
    try:
        answer = asyncio.create_task(_only_answer(reader))
        with suppress(ConnectionError):  # it may be closed before all of this is sent
            for piece in pieces:
                if answer.done() or writer.transport.is_closing():
                    break
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        return await answer
    finally:
        writer.close()


async def _only_answer(reader: asyncio.StreamReader) -> Reply:
    async with asyncio.timeout(WAIT_SECONDS):
        reply = await read_reply(reader)
        with suppress(ConnectionError):  # closed with bytes of ours unread
            assert await reader.read() == b""
        return reply


def body(raw: bytes, *headers: bytes) -> bytes:
    """A request with this body."""
    lines = b"".join(header + b"\r\n" for header in (b"Connection: close", *headers))
    return POST + lines + f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw


def chunked(chunks: Iterable[bytes]) -> bytes:
    """A body in chunks, that has no end."""
    return b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)


# --- half a request -----------------------------------------------------------------------------


async def test_500_half_sent_heads_are_refused_in_time(service: Service) -> None:
    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, GET) for _ in range(MANY)))

    for reply in replies:
        refused(reply, 408, "request.head_timeout")


async def test_500_half_sent_bodies_are_refused_in_time(service: Service) -> None:
    half = POST + b"Content-Length: 65536\r\n\r\n" + b"[" * 65_000

    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, half) for _ in range(MANY)))

    for reply in replies:
        refused(reply, 408, "request.body_timeout")


async def test_a_byte_at_a_time_does_not_move_a_deadline(service: Service) -> None:
    bytes_of_a_head = [GET, *(b"X" for _ in range(1000))]
    bytes_of_a_body = [POST + b"Content-Length: 60000\r\n\r\n", *(b" " for _ in range(1000))]

    async with service.unharmed():
        heads = [sent(service, *bytes_of_a_head, pause=0.1) for _ in range(50)]
        bodies = [sent(service, *bytes_of_a_body, pause=0.1) for _ in range(50)]
        replies = await asyncio.gather(*heads, *bodies)

    for reply in replies[:50]:
        refused(reply, 408, "request.head_timeout")
    for reply in replies[50:]:
        refused(reply, 408, "request.body_timeout")


# --- too much -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([POST + CLOSE + b"Content-Length: 10485760\r\n\r\n", *[b" " * MIB] * 10], id="length"),
        pytest.param(
            [POST + CLOSE + CHUNKED + b"\r\n", *[chunked([b" " * MIB])] * 10, b"0\r\n\r\n"], id="chunked"
        ),
    ],
)
async def test_bodies_of_10_mib_are_refused(service: Service, pieces: list[bytes]) -> None:
    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, *pieces) for _ in range(20)))

    for reply in replies:
        refused(reply, 413, "request.body_too_large")


async def test_a_body_without_an_end_is_refused_and_its_connection_closed(service: Service) -> None:
    head = POST + CHUNKED + b"\r\n"

    async with service.unharmed():
        reply = await sent(service, head, *[chunked([b" " * 20_000])] * 100_000, pause=0.01)

    refused(reply, 413, "request.body_too_large")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"{" + b",".join(b'"f%d":1' % n for n in range(5_500)) + b"}", id="unknown fields"),
        pytest.param(b"[" + b"{}," * 20_000 + b"{}]", id="a list"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="nested lists"),
        pytest.param(b'{"name":' * 7_000 + b"1" + b"}" * 7_000, id="nested objects"),
        pytest.param(b'{"' + b"k" * 60_000 + b'":1}', id="a long name"),
        pytest.param(b'{"name":"' + b"n" * 60_000 + b'"}', id="a long text"),
        pytest.param(b'{"price_cents":' + b"9" * 60_000 + b"}", id="a long number"),
        pytest.param(b'{"price_cents":' + b"9" * 400 + b"}", id="400 digits"),
        pytest.param(b'{"price_cents":1e400}', id="1e400"),
        pytest.param(b'{"price_cents":-1e999999999}', id="-1e999999999"),
        pytest.param(b'{"price_cents":NaN}', id="NaN"),
        pytest.param(b'{"price_cents":Infinity}', id="Infinity"),
        pytest.param(b'{"price_cents":-Infinity}', id="-Infinity"),
        pytest.param(b'{"name":"\xff\xfe"}', id="no UTF-8"),
        pytest.param(b'{"name":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"name":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'\xef\xbb\xbf{"name":"x"}', id="a byte order mark"),
        pytest.param(b'{"name":"x"}'.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"name":"x"}{"name":"y"}', id="two texts"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00" * 60_000, id="zeros"),
    ],
)
async def test_bodies_made_to_hurt_are_refused(service: Service, raw: bytes) -> None:
    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, body(raw)) for _ in range(20)))

    for reply in replies:
        problem = refused(reply, 400, json.loads(reply.body)["code"])
        assert problem["code"] in ("request.malformed", "request.invalid")
        assert len(reply.body) < 65_536


async def test_a_million_items_are_refused(service: Service) -> None:
    raw = (
        b'{"customer_id":1,"items":[' + b'{"product_id":1,"qty":1},' * 999_999 + b'{"product_id":1,"qty":1}]}'
    )

    async with service.unharmed():
        reply = await sent(service, body(raw))

    refused(reply, 413, "request.body_too_large")


async def test_a_gzip_bomb_is_not_unpacked(service: Service) -> None:
    bomb = (
        bytes.fromhex("1f8b0800000000000003")
        + b"\xec\xc1\x01\x01\x00\x00\x00\x80\x90\xfe\xaf\xee\x08" * 4_000
    )

    async with service.unharmed():
        replies = [
            await sent(service, body(bomb, b"Content-Encoding: " + coding))
            for coding in (b"gzip", b"deflate", b"br")
        ]

    for reply in replies:
        refused(reply, 415, "request.media_type_unsupported")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"".join(b"X-%d: 1\r\n" % number for number in range(100)) + b"\r\n", id="many"),
        pytest.param(b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", id="long"),
        pytest.param(b"X" * 20_000 + b": 1\r\n\r\n", id="a long name"),
    ],
)
async def test_floods_of_headers_are_refused(service: Service, head: bytes) -> None:
    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, GET + head) for _ in range(20)))

    for reply in replies:
        refused(reply, 431, "request.headers_too_large")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"Authorization: Bearer x" + b" " * 8_000 + b"y", id="authorization"),
        pytest.param(b"Content-Type: a/b;" + b"x=;" * 2_600, id="content type"),
        pytest.param(b"baggage: a=b" + b" " * 8_000 + b"c", id="baggage"),
        pytest.param(b"tracestate: a=b" + b" " * 8_000 + b"c", id="tracestate"),
        pytest.param(b"Prefer: " + b"wait=" * 1_600, id="prefer"),
        pytest.param(b"If-Match: " + b'"1' * 4_000, id="if-match"),
    ],
)
async def test_headers_made_to_take_long_do_not(service: Service, header: bytes) -> None:
    request = POST.replace(JSON, b"") + header + b"\r\n" + CLOSE + b"Content-Length: 2\r\n\r\n{}"

    async with service.unharmed(), asyncio.timeout(WAIT_SECONDS):
        replies = [
            reply
            for _ in range(10)
            for reply in await asyncio.gather(*(sent(service, request) for _ in range(50)))
        ]

    assert {reply.status for reply in replies} <= {400, 415}


async def test_a_long_address_is_refused(service: Service) -> None:
    async with service.unharmed():
        reply = await sent(service, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: orders\r\n\r\n")

    refused(reply, 431, "request.headers_too_large")


async def test_very_many_query_parameters_are_refused(service: Service) -> None:
    path = READ + "".join(f"&p{number}=" for number in range(1_100))
    request = f"GET {path} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n".encode()

    async with service.unharmed():
        replies = await asyncio.gather(*(sent(service, request) for _ in range(50)))

    for reply in replies:
        assert len(refused(reply, 400, "request.invalid")["errors"]) == 100


# --- what others would read differently -----------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", id="two lengths"),
        pytest.param(POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", id="a length twice"),
        pytest.param(POST + b"Content-Length: 2, 40\r\n\r\n{}", id="a list of lengths"),
        pytest.param(POST + b"Content-Length: +2\r\n\r\n{}", id="a signed length"),
        pytest.param(POST + b"Content-Length: 0x2\r\n\r\n{}", id="a hexadecimal length"),
        pytest.param(POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n", id="length and chunks"),
        pytest.param(POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", id="two codings"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="an unknown coding"),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="a space before the colon"),
        pytest.param(POST + b"X: 1\r\n folded\r\nContent-Length: 2\r\n\r\n{}", id="a folded line"),
        pytest.param(POST + b"X: 1\nTransfer-Encoding: chunked\n\n0\r\n\r\n", id="bare line feeds"),
        pytest.param(POST + b"X: a\x00b\r\n\r\n", id="a zero in a header"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="another version"),
    ],
)
async def test_requests_that_can_be_read_in_two_ways_are_refused(service: Service, request_: bytes) -> None:
    async with service.unharmed():
        reply = await sent(service, request_ + GET + b"\r\n")

    refused(reply, 400, "request.malformed")


async def test_of_a_name_given_twice_the_last_value_is_the_one_that_is_checked(service: Service) -> None:
    reply = await sent(service, body(b'{"sku":"TWICE","name":"x","price_cents":1,"price_cents":-1}'))

    assert refused(reply, 400, "request.invalid")["errors"][0]["pointer"] == "#/price_cents"


# --- very many ------------------------------------------------------------------------------------


async def test_a_thousand_requests_in_one_packet_are_all_answered(service: Service) -> None:
    async with service.unharmed():
        reader, writer = await asyncio.open_connection(HOST, service.client.port)
        writer.write((GET + b"\r\n") * 999 + GET + b"Connection: close\r\n\r\n")
        answers = await reader.read()
        writer.close()

    assert answers.count(b"HTTP/1.1 200 OK") == 1000


async def test_thousands_of_idle_connections_keep_nobody_out(service: Service) -> None:
    async with service.unharmed():
        idle = [await asyncio.open_connection(HOST, service.client.port) for _ in range(2_000)]
        for _, writer in idle[-400:]:
            writer.write(GET + b"\r\n")
        for reader, _ in idle[-400:]:
            assert (await read_reply(reader)).status == 200
        assert service.look()[1] < 1_000
        assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()


async def test_clients_that_leave_in_the_middle_leave_nothing_behind(service: Service) -> None:
    async with service.unharmed():
        for _ in range(MANY):
            _, writer = await asyncio.open_connection(HOST, service.client.port)
            writer.write(POST + b"Content-Length: 60000\r\n\r\n" + b"[" * 30_000)
            writer.transport.abort()
