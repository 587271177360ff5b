"""One address in front of the replicas of a service, as a Kubernetes Service is.

A new connection goes to the next of the replicas that were ready when last asked; a connection that
is open stays where it is. With no replica ready, connections are refused.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from dev.stack import Service
from tests.faults.proxy import Proxy, to

ASK_EVERY_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Balancer:
    """Chooses among replicas: the target of a proxy."""

    def __init__(self, replicas: Sequence[Service]) -> None:
        self._ready: dict[int, bool] = {replica.port: False for replica in replicas}
        self._replicas = replicas
        self._turn = 0

    def __call__(self) -> int | None:
        """The port of the next replica that is ready."""
        ready = [port for port, is_ready in self._ready.items() if is_ready]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None

    async def watch(self) -> None:
        """Ask the replicas again and again whether they want traffic."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            await asyncio.gather(*(self._watch(session, replica) for replica in self._replicas))

    async def all_ready(self) -> None:
        """Wait until every replica was ready when last asked."""
        while not all(self._ready.values()):  # noqa: ASYNC110 - it is asked anyway
            await asyncio.sleep(ASK_EVERY_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession, replica: Service) -> None:
        is_ready = False
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{replica.admin_url}/readyz") as response:
                is_ready = response.ok
        self._ready[replica.port] = is_ready

    async def _watch(self, session: aiohttp.ClientSession, replica: Service) -> None:
        while True:
            await self._ask(session, replica)
            await asyncio.sleep(ASK_EVERY_SECONDS)


@asynccontextmanager
async def balanced(links: Iterable[Proxy], replicas: Sequence[Service]) -> AsyncIterator[None]:
    """Lead these links to the replicas until the block ends, and then to the first of them again."""
    balancer = Balancer(replicas)
    affected = tuple(links)
    watching = asyncio.create_task(balancer.watch())
    await balancer.all_ready()
    for link in affected:
        link.target = balancer
    try:
        yield
    finally:
        for link in affected:
            link.target = to(replicas[0].port)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
