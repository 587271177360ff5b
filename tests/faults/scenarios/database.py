"""MariaDB is killed again and again while clients are at work; it recovers what it has acknowledged."""

import asyncio

from tests.faults.campaign import Case
from tests.faults.load import load
from tests.faults.logs import unforeseen
from tests.faults.run import Run

SCENARIO = "database"


def kill(times: int) -> Case:
    """Kill it so many times, every few seconds."""

    async def act(run: Run) -> None:
        async with unforeseen(run), load(run):
            for _ in range(times):
                await asyncio.sleep(run.random.uniform(0.3, 2.5))
                await run.world.kill_database()
                run.fault()
                await asyncio.sleep(run.random.uniform(0, 1))
                await asyncio.to_thread(run.world.server.start)

    return Case(SCENARIO, f"kill {times} time(s)", act, short=times == 1)


CASES = (kill(1), kill(5))
