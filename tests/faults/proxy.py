"""A TCP proxy that misbehaves when told to: the network between two parts of the system.

    async with proxy("orders-database", to(server.port), seed=7) as link:
        DATABASE_URL=mysql://root@127.0.0.1:{link.port}/orders
        link.faults = Faults(reset=0.02)
        ...
        link.faults = NONE

It sees the bytes of connections, not packets: TCP would send a lost packet again. So `lost` is what
is left when that does not help either: a connection that stays open and silent until an end gives up.

The n-th connection draws its fate from the seed, the name and n, one draw a chunk and direction,
whatever the faults are at that moment: the same seed means the same fates, as far as the kernel parts
the bytes into the same chunks.
"""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import NoReturn

from dev.ports import HOST

CHUNK_BYTES = 65_536
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: a close discards what is unsent and sends a RST


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to what passes through.

    `latency` is the longest delay of a chunk in seconds; each is drawn evenly from zero on. `reset`,
    `cut` and `lost` are shares of chunks, of requests as of answers, together at most 1. Of a chunk that
    is reset or cut a part passes, then both ends get a RST, or an end of file that looks orderly. After
    one that is lost nothing passes any more in its direction. In a `black_hole` nothing passes at all,
    not even the end of a connection; what was sent into it arrives afterwards.
    """

    latency: float = 0
    reset: float = 0
    cut: float = 0
    lost: float = 0
    black_hole: bool = False


NONE = Faults()

Target = Callable[[], int | None]
"""The port of this machine that the next connection is for; None refuses it."""


def to(port: int) -> Target:
    """Always this port."""
    return lambda: port


class _Reset(Exception):  # noqa: N818 - an outcome, not an error
    """Both ends are to get a RST."""


class _Cut(Exception):  # noqa: N818 - an outcome, not an error
    """Both ends are to get an end of file."""


@dataclass(frozen=True, slots=True)
class _End:
    """One side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, chunk: bytes | None) -> None:
        """Send bytes, or with None the end."""
        if self.writer.transport.is_closing():  # uvloop would take it for an error of ours
            raise _Reset
        if chunk is None:
            self.writer.write_eof()
            return
        self.writer.write(chunk)
        await self.writer.drain()

    def reset(self) -> None:
        """Send a RST."""
        ours = self.writer.get_extra_info("socket")
        if ours is not None and not self.writer.transport.is_closing():
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.writer.transport.abort()


class Proxy:
    """A listening port, `port`, and what becomes of its connections.

    `struck` counts the connections that were reset, cut or silenced. `target` and `seed` are those of
    connections that are still to come.
    """

    def __init__(self, name: str, target: Target, *, seed: int) -> None:
        self.name = name
        self.port = 0
        self.struck = 0
        self.target = target
        self.seed = seed
        self._faults = NONE
        self._passable = asyncio.Event()
        self._passable.set()
        self._numbers = count(1)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def faults(self) -> Faults:
        """What happens from now on, to open connections, too."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        if faults.black_hole:
            self._passable.clear()
        else:
            self._passable.set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accepted, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        if self._server is not None:
            self._server.close()
        open_ones = tuple(self._connections)
        for connection in open_ones:
            connection.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(next(self._numbers), _End(reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, number: int, near: _End) -> None:
        ends = [near]
        try:
            await self._passable.wait()
            port = self.target()
            if port is None:
                raise _Reset  # noqa: TRY301 - handled with the others below
            ends.append(_End(*await asyncio.open_connection(HOST, port)))
            await self._carry(number, *ends)
        except (_Reset, OSError):  # an end that is gone resets the other one
            await self._passable.wait()
            for end in ends:
                end.reset()
        except asyncio.CancelledError:
            for end in ends:
                end.reset()
            raise
        else:
            for end in ends:
                end.writer.close()

    async def _carry(self, number: int, near: _End, far: _End) -> None:
        def chance(direction: str) -> random.Random:
            return random.Random(f"{self.seed} {self.name} {number} {direction}")  # noqa: S311 - fates

        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(near, far, chance("in")))
                both.create_task(self._pass(far, near, chance("out")))
        except* _Cut:
            pass
        except* (_Reset, OSError) as group:
            raise _Reset from group

    async def _pass(self, source: _End, sink: _End, chance: random.Random) -> None:
        """Carry one direction to its end."""
        while chunk := await source.reader.read(CHUNK_BYTES):
            fate, part, late = chance.random(), chance.random(), chance.random()
            await self._passable.wait()
            faults = self._faults
            if faults.latency:
                await asyncio.sleep(late * faults.latency)
            if fate < faults.lost:
                self.struck += 1
                await _until_given_up(source)
            fate -= faults.lost
            if fate < faults.reset + faults.cut:
                self.struck += 1
                await sink.send(chunk[: int(part * len(chunk))])
                raise _Reset if fate < faults.reset else _Cut
            await sink.send(chunk)
        await self._passable.wait()
        await sink.send(None)


async def _until_given_up(source: _End) -> NoReturn:
    """Let nothing pass any more; once this end closes, the other one is to hear it."""
    while await source.reader.read(CHUNK_BYTES):
        pass
    raise _Cut


@asynccontextmanager
async def proxy(name: str, target: Target, *, seed: int) -> AsyncIterator[Proxy]:
    """Run a proxy until the block ends."""
    running = Proxy(name, target, seed=seed)
    await running.start()
    try:
        yield running
    finally:
        await running.close()
