"""Clients at work while something is broken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.run import Run, ScenarioFailed

CLIENTS = 6


@asynccontextmanager
async def load(run: Run) -> AsyncIterator[None]:
    """Clients that send one job after the other as long as the block runs.

    Every other one repeats each job until it has its answer; the rest do not and go on with the next.
    What was broken has to be whole when the block ends: then every client does one job more, which
    has to have its answer, and from the processes that met the fault.

    Raises:
        ScenarioFailed: no job was done before the block began or while it ran.
        TimeoutError: a job has no answer after a minute.

    """
    body = await run.world.basket()
    over = asyncio.Event()

    async def work(number: int) -> None:
        send = run.insist if number % 2 else run.ask
        while not over.is_set():
            await send(body, run.key())
        await run.insist(body, run.key())

    async with asyncio.TaskGroup() as clients:
        await run.insist(body, run.key())
        for number in range(CLIENTS):
            clients.create_task(work(number))
        yield
        over.set()
    if len(run.calls) <= 2 * CLIENTS:
        raise ScenarioFailed("nothing was asked while it was broken")
