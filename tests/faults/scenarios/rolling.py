"""A service is restarted one replica after the other, as a release does it: nobody may notice.

Two replicas stand behind one address, which leaves out who is not ready.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from dev.ports import HOST
from dev.stack import Service
from tests.faults.balancer import balanced
from tests.faults.campaign import Case
from tests.faults.load import load
from tests.faults.logs import unforeseen
from tests.faults.network import CALLS
from tests.faults.proxy import Proxy
from tests.faults.run import Run

SCENARIO = "rolling restart"
INVARIANT = "nobody_notices_a_restart"
DRAINING = {"DRAIN_SECONDS": "1"}
"""Longer than it takes the address to leave out a replica that drains."""
PAUSE_SECONDS = 0.02
"""Between two visitors."""


def roll(name: str) -> Case:
    """Restart both replicas of this service."""

    async def act(run: Run) -> None:
        world = run.world
        first: Service = getattr(world.services, name)
        second = await world.replica(first, **DRAINING)
        await world.restart(first, **DRAINING)
        links = tuple(world.network.to(name))
        async with balanced(links, (first, second)), unforeseen(run), visitors(run, links[0]), load(run):
            for replica in (first, second):
                await asyncio.sleep(run.random.uniform(0.3, 1))
                code = await replica.terminate()
                run.fault()
                if code != 0:
                    run.violated(INVARIANT, f"{name} ended with {code}")
                await replica.start()
        for call in run.calls:
            if call.status is None:
                run.violated(INVARIANT, f"{call.key} got no answer: {call.error}")

    return Case(SCENARIO, name, act, short=name == "orchestrator")


@asynccontextmanager
async def visitors(run: Run, link: Proxy) -> AsyncIterator[None]:
    """Callers that come all the time, each on a connection of its own, and want an answer."""
    over = asyncio.Event()

    async def come() -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            while not over.is_set():
                try:
                    async with http.get(f"http://{HOST}:{link.port}/") as response:
                        said = str(response.status)
                        await response.read()
                except aiohttp.ClientError as error:
                    said = type(error).__name__
                if said != "200":
                    run.violated(INVARIANT, f"a visitor got {said}")
                await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as coming:
        coming.create_task(come())
        yield
        over.set()


CASES = tuple(roll(name) for name in CALLS)
