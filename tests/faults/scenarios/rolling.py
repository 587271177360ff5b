"""A service is restarted one replica after the other, as a release does it: nobody may notice.

Two replicas stand behind one address, which leaves out who is not ready.
"""

import asyncio

from dev.stack import Service
from tests.faults.balancer import balanced
from tests.faults.campaign import Case
from tests.faults.load import load
from tests.faults.logs import unforeseen
from tests.faults.network import CALLS
from tests.faults.run import Run

SCENARIO = "rolling restart"
INVARIANT = "nobody_notices_a_restart"
DRAINING = {"DRAIN_SECONDS": "1"}
"""Longer than it takes the address to leave out a replica that drains."""


def roll(name: str) -> Case:
    """Restart both replicas of this service."""

    async def act(run: Run) -> None:
        world = run.world
        first: Service = getattr(world.services, name)
        second = await world.replica(first, **DRAINING)
        await world.restart(first, **DRAINING)
        async with balanced(world.network.to(name), (first, second)), unforeseen(run), load(run):
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


CASES = tuple(roll(name) for name in CALLS)
