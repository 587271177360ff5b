"""Drives sagas: take a step, write down what came of it, until the saga ends or the peers fail.

A saga is driven in a task of its own. The client that started it waits for the task but does not
own it: when the client goes away the saga goes on, and when this process dies the lease runs out
and the sweeper of another replica goes on from the last step written.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import TypeVar

import stamina
import structlog
from aiohttp import web
from opentelemetry import context as otel_context
from opentelemetry.trace import Status as SpanStatus
from opentelemetry.trace import StatusCode

from chassis import correlation
from chassis.database import DATABASE, Database, Work
from chassis.errors import DatabaseContended, DatabaseUnavailable, PeerProblem, PoolExhausted, Problem
from chassis.http import Answer
from chassis.idempotency import KEYS, Key, Keys
from chassis.lifecycle import LIFECYCLE
from chassis.telemetry import traces
from chassis.telemetry.metrics import SAGA_COMPENSATIONS, SAGA_OLDEST, SAGA_STEP_DURATION, SAGAS, SAGAS_ENDED
from orchestrator import commands, failpoints, queries
from orchestrator.commands import LeaseLost
from orchestrator.errors import PeerRefusal
from orchestrator.models import UNFINISHED, Saga, Status, Step
from orchestrator.peers import PEERS, Done, Peers
from orchestrator.settings import SETTINGS, Settings

MAX_DOUBLINGS = 6
"""Pauses double to about a minute, and are never longer than the lease: so long, a saga may go unattended."""
FIRST_LOOK_SECONDS = 0.05
LAST_LOOK_SECONDS = 1.0
"""Between two looks at a saga that another replica drives; each pause is twice the one before."""
GIVE_BACK_SECONDS = 3
"""How long the end of a process waits for its leases to be given back."""
ANSWERING = 0.1
"""Of SHUTDOWN_TIMEOUT: what is kept for answers to the clients of sagas that did not end in time."""
MAX_DRIVEN = 200
"""Sagas driven by one process before its sweeper takes no more."""
PASSING = (DatabaseUnavailable, DatabaseContended, PoolExhausted)
"""Why a saga cannot be written now, but may be in a moment."""
_OUTCOMES = ("done", "refused", "unavailable")
T = TypeVar("T")
log = structlog.get_logger(__name__)

# From zero, or a rate never sees the first one of a kind.
for _step in Step:
    for _each in _OUTCOMES:
        SAGA_STEP_DURATION.labels(_step, _each)
for _status in Status:
    (SAGAS if _status in UNFINISHED else SAGAS_ENDED).labels(_status)
SAGAS.labels(Status.NEEDS_ATTENTION)


class Driver:
    """The sagas that this process works on."""

    def __init__(self, database: Database, keys: Keys, peers: Peers, settings: Settings) -> None:
        self._database = database
        self._keys = keys
        self._lease = settings.saga_lease
        self._peers = peers
        self._settings = settings
        self._tasks: dict[str, asyncio.Task[Answer | None]] = {}
        self._running: dict[asyncio.Task[Answer | None], Saga] = {}
        self._interrupted: list[Saga] = []
        self._watches: dict[str, asyncio.Task[None]] = {}

    async def start(self, saga: Saga, key: Key, *, detached: bool) -> None:
        """Insert a new saga with its key and drive it, see `launch`.

        Raises:
            KeyTaken: the key has started a saga already.

        """
        await self._database.transact(
            lambda session: commands.start_saga(session, saga, self._keys, key, self._lease)
        )
        await failpoints.SAGA_COMMITTED()
        self.launch(saga, resumed=detached, detached=detached)

    async def take_over(self, saga_id: str) -> bool:
        """Drive a saga that is unfinished and that nobody works on; False if there is nothing to do."""
        saga = await self._database.transact(
            lambda session: commands.take_over(session, saga_id, self._lease)
        )
        if saga is not None:
            self.launch(saga, resumed=True, detached=False)
        return saga is not None

    def watch(self, saga_id: str) -> "asyncio.Task[None]":
        """The task that ends when the saga ended, needs attention, or is driven here for want of another.

        There is one a saga, however many requests wait for it.
        """
        if saga_id not in self._watches:
            task = asyncio.create_task(self._watch(saga_id), name=f"watch saga {saga_id}")
            self._watches[saga_id] = task
            task.add_done_callback(partial(self._unwatch, saga_id))
        return self._watches[saga_id]

    def _unwatch(self, saga_id: str, task: "asyncio.Task[None]") -> None:
        del self._watches[saga_id]
        if not task.cancelled():
            task.exception()  # those who still wait find it; if nobody does, it is nobody's failure

    async def _watch(self, saga_id: str) -> None:
        pause = FIRST_LOOK_SECONDS
        while True:
            async with self._database.read() as session:
                state = await queries.get_state(session, saga_id)
            if state.status not in UNFINISHED or (state.is_idle and await self.take_over(saga_id)):
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)

    async def retry(self, saga_id: str) -> Saga:
        """Drive a saga that needs attention.

        Raises:
            SagaNotFound, SagaNotRetryable: nothing was changed.

        """
        saga = await self._database.transact(
            lambda session: commands.retry_saga(session, saga_id, self._lease)
        )
        self.launch(saga, resumed=True, detached=True)
        return saga

    async def sweep(self) -> None:
        """Take over sagas whose lease ran out or whose pause is over, as many as there is room for."""
        room = MAX_DRIVEN - len(self._running)
        if room > 0:
            stale = await self._database.transact(
                lambda session: commands.take_over_stale(session, room, self._lease)
            )
            if stale:
                await failpoints.SWEEPER_LEASED()
            for saga in stale:
                self.launch(saga, resumed=True, detached=True)
        async with self._database.read() as session:
            unfinished = await queries.unfinished(session)
        for status, found in unfinished.items():
            SAGAS.labels(status).set(found.count)
        SAGA_OLDEST.set(max(found.oldest for found in unfinished.values()))

    def launch(self, saga: Saga, *, resumed: bool, detached: bool) -> None:
        """Drive a saga that is leased to this process.

        Its spans continue the current trace or, if `detached`, begin a new one. Those of a saga that is
        `resumed` are linked to the trace in which it was started.
        """
        drive = self._resume(saga, detached=detached) if resumed else self._drive(saga)
        task = asyncio.create_task(drive, name=f"saga {saga.id}")
        self._tasks[saga.id] = task
        self._running[task] = saga
        task.add_done_callback(lambda _: self._forget(saga.id, task))

    def task(self, saga_id: str) -> "asyncio.Task[Answer | None] | None":
        """The task in which this process drives the saga; its result is the saga's answer, if it ended."""
        return self._tasks.get(saga_id)

    def _forget(self, saga_id: str, task: "asyncio.Task[Answer | None]") -> None:
        self._running.pop(task, None)
        if self._tasks.get(saga_id) is task:  # this process may have taken the saga over from itself
            del self._tasks[saga_id]

    def interrupt(self) -> None:
        """Stop working on sagas and waiting for them; their clients are told that there is no answer yet."""
        for watch in self._watches.values():
            watch.cancel()
        for task, saga in self._running.items():
            self._interrupted.append(saga)
            task.cancel()

    async def close(self, patience: float) -> None:
        """Let sagas come to an end or a pause for so many seconds; give the others away.

        Other replicas take them over at once, instead of waiting for their leases to run out.
        """
        if self._running and patience:
            await asyncio.wait(set(self._running), timeout=patience)
        self.interrupt()
        if self._running:
            await asyncio.wait(set(self._running))
        if self._interrupted:
            await self._give_back(self._interrupted)

    async def _give_back(self, sagas: Sequence[Saga]) -> None:
        code = None
        try:
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._database.transact(lambda session: commands.give_back(session, sagas))
        except Problem as problem:
            code = problem.code
        except TimeoutError:
            code = DatabaseUnavailable.code
        if code is not None:
            log.warning("leases were not given back, they run out", error_code=code)

    async def _resume(self, saga: Saga, *, detached: bool) -> Answer | None:
        if detached:
            otel_context.attach(otel_context.Context())
        correlation.adopt(saga.correlation_id)
        with traces.tracer.start_as_current_span(
            "saga resumed", links=traces.links_to(saga.traceparent), attributes={"saga_id": saga.id}
        ):
            return await self._drive(saga)

    async def _drive(self, saga: Saga) -> Answer | None:
        correlation.adopt(saga.correlation_id)
        answer = None
        try:
            if saga.attempts > self._settings.saga_attempts:
                saga.give_up(f"No end after {self._settings.saga_attempts} attempts.")
                await self._write(saga)
            while saga.status in UNFINISHED and saga.step is not None:
                step = Step(saga.step)
                if not await self._take(saga, step):
                    await self._pause(saga)
                    break
                answer = await self._write(saga)
                await failpoints.RECORDED[step]()
        except LeaseLost:
            log.warning("saga was taken over by another replica", saga_id=saga.id)
        except Problem as problem:
            log.warning(
                "saga cannot be written, the sweeper goes on", saga_id=saga.id, error_code=problem.code
            )
        except Exception:
            log.exception("saga failed, the sweeper goes on", saga_id=saga.id)
        return answer

    async def _take(self, saga: Saga, step: Step) -> bool:
        """Take one step and let the saga know what came of it; False if it has to be tried again later."""
        started_at, started = datetime.now(UTC), perf_counter()
        attributes: dict[str, str | int] = {"saga_id": saga.id, "saga.step": step}
        if saga.order_id is not None:
            attributes["order_id"] = saga.order_id
        with traces.tracer.start_as_current_span(f"saga {step}", attributes=attributes) as span:
            try:
                result: Done | PeerRefusal | PeerProblem = await self._peers.take(step, saga)
            except (PeerRefusal, PeerProblem) as problem:
                result = problem
            outcome, code = _outcome(result), _code(result)
            span.set_attribute("saga.outcome", outcome)
            if code is not None:
                span.set_attribute("error.type", code)
            if outcome == "unavailable":
                span.set_status(SpanStatus(StatusCode.ERROR))
            if isinstance(result, Done) and step == Step.CREATE_ORDER:
                span.set_attribute("order_id", result.snapshot["id"])
            log.info("saga step", saga_id=saga.id, saga_step=step, outcome=outcome, error_code=code)
        SAGA_STEP_DURATION.labels(step, outcome).observe(perf_counter() - started)
        saga.record(outcome, result.attempts, started_at, datetime.now(UTC), code)
        if isinstance(result, Done):
            saga.done(result.snapshot)
        elif isinstance(result, PeerRefusal):
            saga.refused({"code": result.peer_code, "members": result.members})
            if saga.status == Status.COMPENSATING:
                SAGA_COMPENSATIONS.inc()
        return outcome != "unavailable"

    async def _write(self, saga: Saga) -> Answer | None:
        answer = await self._written(
            lambda session: commands.write_saga(session, saga, self._keys, self._lease)
        )
        if saga.status not in UNFINISHED:
            SAGAS_ENDED.labels(saga.status).inc()
        return answer

    async def _pause(self, saga: Saga) -> None:
        longest = min(2.0 ** min(saga.attempts, MAX_DOUBLINGS), self._lease)
        seconds = longest * random.uniform(0.6, 1)  # noqa: S311 - jitter
        log.warning(
            "saga pauses", saga_id=saga.id, saga_step=saga.step, attempt=saga.attempts, seconds=seconds
        )
        await self._written(lambda session: commands.postpone_saga(session, saga, seconds))

    async def _written(self, write: Work[T]) -> T:
        """Write what the saga has become, again while the database will not and the lease may be ours.

        The fence makes that safe: what a COMMIT of unknown outcome wrote is written once more.
        """
        async for attempt in stamina.retry_context(
            on=PASSING, attempts=None, timeout=self._lease, wait_initial=0.1, wait_max=1
        ):
            with attempt:
                return await self._database.transact(write)
        raise AssertionError("the loop above returns or raises")  # pragma: no cover - for the type checker


def _outcome(result: Done | PeerRefusal | PeerProblem) -> str:
    if isinstance(result, Done):
        return "done"
    return "refused" if isinstance(result, PeerRefusal) else "unavailable"


def _code(result: Done | PeerRefusal | PeerProblem) -> str | None:
    if isinstance(result, Done):
        return None
    return result.peer_code if isinstance(result, PeerRefusal) else result.code


DRIVER = web.AppKey("driver", Driver)


async def driver(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[DRIVER]`; it needs `peers` before it."""
    app[DRIVER] = Driver(app[DATABASE], app[KEYS], app[PEERS], app[SETTINGS])
    yield
    await app[DRIVER].close(app[LIFECYCLE].seconds_left())


async def interrupt_in_time(app: web.Application) -> None:
    """For `on_shutdown`: interrupt sagas before their clients are cut off.

    These get a 503 with the saga's URL, and repeated with the same key their request is continued by
    another replica.
    """
    seconds = (1 - ANSWERING) * app[LIFECYCLE].seconds_left()
    asyncio.get_running_loop().call_later(seconds, app[DRIVER].interrupt)
