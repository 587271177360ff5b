"""The front desk of the main job: start a saga, or join the one that the key started, and wait.

The starter and every twin get the same bytes: the answer that the saga's end keeps with the key.
"""

import asyncio
import uuid
from dataclasses import dataclass
from functools import partial
from time import monotonic

from aiohttp import web
from opentelemetry import trace

from chassis import correlation, http
from chassis.auth import principal
from chassis.database import DATABASE
from chassis.errors import KeyInProgress, Problem
from chassis.http import Answer
from chassis.idempotency import KEY, KEYS, Key, KeyHeld, KeyTaken, in_progress
from chassis.telemetry import traces
from orchestrator import answers, failpoints, queries
from orchestrator.driver import DRIVER
from orchestrator.models import UNFINISHED, Saga, Status, Step
from orchestrator.schemas import AcceptedView, CreateAndConfirmOrder
from orchestrator.settings import SETTINGS


@dataclass(frozen=True, slots=True)
class Ticket:
    """A claim to the answer of a saga; `is_twin` if it was started earlier or in another process."""

    saga_id: str
    is_twin: bool


async def create_and_confirm(request: web.Request, body: CreateAndConfirmOrder) -> Answer:
    """Do the main job once for the key of the request and answer with its result.

    Raises:
        KeyReused: the key belongs to another request.
        KeyInProgress: the first request with this key is still being worked on.
        SagaUnfinished, SagaNeedsAttention: the saga has no answer yet.

    """
    keys, settings = request.app[KEYS], request.app[SETTINGS]
    ticket_of, began = partial(_ticket, request, body), monotonic()
    patience = http.preferred_wait(request, settings.join_timeout)
    try:
        ticket, is_anothers = await keys.flights.share(request[KEY], ticket_of, patience)
        if isinstance(ticket, Answer):
            return keys.replayed(ticket)
        trace.get_current_span().set_attribute("saga_id", ticket.saga_id)
        if http.prefers_async(request):
            view = AcceptedView(correlation_id=correlation.current(), saga_id=ticket.saga_id)
            return Answer.of(view, 202, location=answers.saga_url(ticket.saga_id))
        is_twin = is_anothers or ticket.is_twin
        if not is_twin:
            patience = http.preferred_wait(request, settings.answer_timeout)
        answer = await _wait(request, ticket.saga_id, began + patience)
        if answer is None:
            raise await _why_not(request, ticket.saga_id, is_twin=is_twin)
    except KeyInProgress:
        keys.count("in_progress")
        raise
    await failpoints.SAGA_ANSWERED()
    return keys.replayed(answer) if is_twin else answer


async def _ticket(request: web.Request, body: CreateAndConfirmOrder, _flight: object) -> Ticket | Answer:
    """Start a saga, join one, or find the answer of one that is over."""
    key, keys = request[KEY], request.app[KEYS]
    kept = await keys.find(key)
    if kept is None:
        saga = _new_saga(body, key)
        try:
            await request.app[DRIVER].start(saga, key, detached=http.prefers_async(request))
        except (KeyTaken, KeyHeld):
            kept = await keys.find(key)
        else:
            keys.count("executed")
            return Ticket(saga.id, is_twin=False)
    if kept is None or kept.resource is None:
        raise in_progress()
    return kept.answer or Ticket(kept.resource, is_twin=True)


def _new_saga(body: CreateAndConfirmOrder, key: Key) -> Saga:
    return Saga(
        id=uuid.uuid4().hex,
        status=Status.RUNNING,
        step=Step.VALIDATE_CUSTOMER,
        request=body.model_dump(exclude={"idempotency_key", "correlation_id"}),
        steps=[],
        attempts=1,
        correlation_id=correlation.current(),
        traceparent=traces.traceparent(),
        principal=principal.current(),
        key_scope=key.scope,
        key_value=key.value,
        lease_token=1,
    )


async def _wait(request: web.Request, saga_id: str, deadline: float) -> Answer | None:
    """Wait for the answer, wherever the saga is driven; if nobody drives it, drive it here.

    None says that there was none in time, or that waiting brings none.
    """
    driver = request.app[DRIVER]
    if driver.task(saga_id) is None:
        watch = driver.watch(saga_id)
        await asyncio.wait([watch], timeout=max(0, deadline - monotonic()))
        if watch.done() and not watch.cancelled():  # it is when this process ends
            watch.result()
    if (task := driver.task(saga_id)) is not None:
        await asyncio.wait([task], timeout=max(0, deadline - monotonic()))
        if task.done() and not task.cancelled() and (answer := task.result()) is not None:
            return answer
    # Also after a task of our own: another replica may have taken the saga over and ended it.
    kept = await request.app[KEYS].find(request[KEY])
    return kept.answer if kept else None


async def _why_not(request: web.Request, saga_id: str, *, is_twin: bool) -> Problem:
    async with request.app[DATABASE].read() as session:
        saga = await queries.get_saga(session, saga_id)
    if is_twin and saga.status in UNFINISHED and not saga.is_paused:
        return KeyInProgress(
            "The first request with this key is still running; ask again in a moment.",
            headers={"Location": answers.saga_url(saga.id)},
            saga_id=saga.id,
            saga=answers.saga_url(saga.id),
        )
    return answers.unfinished(saga)
