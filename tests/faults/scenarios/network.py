"""The network between two parts is slow, resets, cuts, loses and is gone, one after the other."""

import asyncio

from tests.faults.campaign import Case
from tests.faults.load import load
from tests.faults.logs import unforeseen
from tests.faults.network import PAIRS
from tests.faults.proxy import NONE, Faults
from tests.faults.run import Run

SCENARIO = "network"
SECONDS = 1.5
GONE_SECONDS = 4
"""Longer than anybody waits for an answer of the database."""
SUFFERED = (
    Faults(latency=0.1),
    Faults(reset=0.05),
    Faults(cut=0.05),
    Faults(lost=0.01),
    Faults(black_hole=True),
)


def suffer(*pairs: tuple[str, str]) -> Case:
    """Let these links suffer everything at the same time, in an order of chance."""

    async def act(run: Run) -> None:
        links = [run.world.network.links[pair] for pair in pairs]
        for link in links:
            link.seed = run.random.getrandbits(32)
        async with unforeseen(run), load(run):
            for faults in run.random.sample(SUFFERED, len(SUFFERED)):
                for link in links:
                    link.faults = faults
                await asyncio.sleep(GONE_SECONDS if faults.black_hole else SECONDS)
                for link in links:
                    link.faults = NONE
                run.fault()

    everywhere = len(pairs) > 1
    return Case(SCENARIO, "everywhere" if everywhere else " to ".join(pairs[0]), act, short=everywhere)


CASES = (*(suffer(pair) for pair in PAIRS), suffer(*PAIRS))
