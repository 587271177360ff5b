"""The network of the campaign does what it is told, and the same again with the same seed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.client import HOST
from tests.faults.proxy import NONE, Faults, Proxy, proxy, to

WORDS = b"a whole answer, with an end"


class Caller:
    """A connection through the proxy, to a server that answers every line with WORDS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self) -> bytes:
        """What came of a question: the answer, or what part of it came before the end."""
        self._writer.write(b"?\n")
        try:
            return await self._reader.readexactly(len(WORDS))
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def is_silent(self) -> bool:
        try:
            async with asyncio.timeout(0.2):
                await self.ask()
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._writer.close()


class Server:
    """Answers every line with WORDS; `ended` once a connection has ended."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                self.asked += 1
                writer.write(WORDS)
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Proxy]:
    listening = await asyncio.start_server(server, HOST, 0)
    async with proxy("test", to(listening.sockets[0].getsockname()[1]), seed=1) as running:
        yield running
    listening.close()


@asynccontextmanager
async def call(link: Proxy) -> AsyncIterator[Caller]:
    caller = Caller(*await asyncio.open_connection(HOST, link.port))
    yield caller
    caller.close()


async def fates(port: int | None, faults: Faults, seed: int) -> list[bytes | None]:
    """What 40 connections meet that ask once; None is a reset."""
    assert port is not None
    found: list[bytes | None] = []
    async with proxy("test", to(port), seed=seed) as link:
        link.faults = faults
        for _ in range(40):
            async with call(link) as caller:
                try:
                    found.append(await caller.ask())
                except ConnectionResetError:
                    found.append(None)
    return found


async def test_without_faults_everything_passes_both_ways(link: Proxy, server: Server) -> None:
    async with call(link) as caller:
        assert [await caller.ask() for _ in range(3)] == [WORDS] * 3

    await server.ended.wait()
    assert link.struck == 0


async def test_a_slow_network_loses_nothing(link: Proxy) -> None:
    link.faults = Faults(latency=0.01)

    async with call(link) as caller:
        assert [await caller.ask() for _ in range(5)] == [WORDS] * 5


async def test_a_reset_reaches_both_ends(link: Proxy, server: Server) -> None:
    async with call(link) as caller:
        assert await caller.ask() == WORDS

        link.faults = Faults(reset=1)

        with pytest.raises(ConnectionResetError):
            await caller.ask()
        await server.ended.wait()
    assert link.struck == 1


async def test_a_cut_is_a_part_and_an_end_that_looks_orderly(link: Proxy, server: Server) -> None:
    answers = [answer for seed in range(5) for answer in await fates(link.target(), Faults(cut=0.3), seed)]

    assert None not in answers
    assert all(WORDS.startswith(answer) for answer in answers if answer)
    assert any(0 < len(answer) < len(WORDS) for answer in answers if answer)
    assert 0 < server.asked < len(answers)


async def test_a_lost_chunk_silences_its_connection_and_no_other(link: Proxy, server: Server) -> None:
    link.faults = Faults(lost=1)
    async with call(link) as silenced, call(link) as other:
        assert await silenced.is_silent()

        link.faults = NONE

        assert await silenced.is_silent()
        assert await other.ask() == WORDS
        assert not server.ended.is_set()
    await server.ended.wait()


async def test_what_was_sent_into_a_black_hole_arrives_when_it_is_over(link: Proxy, server: Server) -> None:
    async with call(link) as late:
        async with call(link) as caller:
            assert await caller.ask() == WORDS

            link.faults = Faults(black_hole=True)
            assert await caller.is_silent()
            assert await late.is_silent()
        assert server.asked == 1
        assert not server.ended.is_set()

        link.faults = NONE
        await server.ended.wait()
        assert await late.ask() == WORDS


async def test_a_connection_that_the_target_refuses_is_reset() -> None:
    async with proxy("test", lambda: None, seed=1) as closed, call(closed) as caller:
        with pytest.raises(ConnectionResetError):
            await caller.ask()


async def test_the_same_seed_means_the_same_fates(server: Server) -> None:
    async with await asyncio.start_server(server, HOST, 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        faults = Faults(reset=0.2, cut=0.2)

        first, again, other = [await fates(port, faults, seed) for seed in (1, 1, 2)]

    assert first == again
    assert first != other
    assert WORDS in first
    assert None in first
