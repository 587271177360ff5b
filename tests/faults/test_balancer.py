"""The address in front of replicas leads to those that want traffic, and to no other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from dev.stack import Service
from tests.client import HOST
from tests.faults.balancer import balanced
from tests.faults.proxy import Proxy, proxy


class Replica:
    """Answers every connection with its name, and `/readyz` with `status`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200

    async def start(self) -> Service:
        self._public = await asyncio.start_server(self._greet, HOST, 0)
        admin = web.Application()
        admin.router.add_get("/readyz", self._readyz)
        self._admin = web.AppRunner(admin)
        await self._admin.setup()
        await web.TCPSite(self._admin, HOST, 0).start()
        port, admin_port = self._public.sockets[0].getsockname()[1], self._admin.addresses[0][1]
        return Service(self.name, port, admin_port, {}, Path())

    async def stop(self) -> None:
        self._public.close()
        await self._admin.cleanup()

    async def _greet(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.name.encode())
        writer.close()

    async def _readyz(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.status)


@pytest.fixture
async def replicas() -> tuple[Replica, Replica]:
    return Replica("a"), Replica("b")


@pytest.fixture
async def front(replicas: tuple[Replica, Replica]) -> AsyncIterator[Proxy]:
    services = [await replica.start() for replica in replicas]
    async with proxy("front", lambda: None, seed=1) as link, balanced([link], services):
        yield link
    for replica in replicas:
        await replica.stop()


async def greeting(front: Proxy) -> str:
    reader, writer = await asyncio.open_connection(HOST, front.port)
    try:
        return (await reader.read()).decode()
    except ConnectionResetError:
        return "refused"
    finally:
        writer.close()


async def greeted_only_by(front: Proxy, wanted: set[str]) -> None:
    async with asyncio.timeout(30):
        while {await greeting(front) for _ in range(6)} != wanted:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(0.01)


async def test_connections_go_round(front: Proxy) -> None:
    assert sorted([await greeting(front) for _ in range(6)]) == ["a", "a", "a", "b", "b", "b"]


async def test_a_replica_that_is_not_ready_is_left_out_until_it_is(
    front: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    replicas[0].status = 503
    await greeted_only_by(front, {"b"})

    replicas[0].status = 200
    await greeted_only_by(front, {"a", "b"})


async def test_without_a_replica_that_is_ready_connections_are_refused(
    front: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    for replica in replicas:
        replica.status = 503

    await greeted_only_by(front, {"refused"})
