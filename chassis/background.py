"""Work that a replica repeats beside its requests: sweeping, tidying up, purging."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import structlog
from aiohttp import web

from chassis.errors import Problem
from chassis.telemetry import traces

Context = Callable[[web.Application], AsyncIterator[None]]
log = structlog.get_logger(__name__)


def every(seconds: float, name: str, work: Callable[[web.Application], Awaitable[object]]) -> Context:
    """A context that calls `work(app)` about every `seconds`.

    A turn has a trace id for its log lines, but is not recorded: most find nothing to do. What is found
    is worth a trace, see `traces.recorded`.

    A failure is logged and the next turn comes as usual; a problem that lasts is logged once. The
    interval varies by a fifth, so that replicas started together do not work at the same moments.
    """
    lasting: str | None = None

    async def turn(app: web.Application) -> None:
        nonlocal lasting
        before, lasting = lasting, None
        with traces.unrecorded():
            try:
                await work(app)
            except Problem as problem:
                lasting = problem.code
                if lasting != before:
                    log.warning("background work failed", work=name, error_code=lasting)
            except Exception:
                log.exception("background work failed", work=name)

    async def repeat(app: web.Application) -> None:
        while True:
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            await turn(app)

    async def context(app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(repeat(app), name=name)
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return context
