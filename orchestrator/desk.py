"""The front desk of the main job: start a saga, or join the one that the key started, and wait.

The starter and every twin get the same bytes: the answer that the saga's end keeps with the key.
"""

import asyncio
import uuid
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from chassis import correlation, http
from chassis.database import DATABASE
from chassis.errors import KeyInProgress, Problem
from chassis.http import Answer
from chassis.idempotency import KEY, KEYS, REPLAYED, Key, KeyTaken
from chassis.telemetry import traces
from orchestrator import answers, failpoints, queries
from orchestrator.driver import DRIVER
from orchestrator.models import UNFINISHED, Saga, Status, Step
from orchestrator.schemas import AcceptedView, CreateAndConfirmOrder
from orchestrator.settings import SETTINGS

FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request's claim to the answer of a saga; `twin` if another request started it."""

    saga_id: str
    key: Key
    twin: bool


async def create_and_confirm(request: web.Request, body: CreateAndConfirmOrder) -> Answer:
    """Do the main job once for the key of the request and answer with its result.

    Raises:
        KeyReused: the key belongs to another request.
        KeyInProgress: the first request with this key is still being worked on.
        SagaUnfinished, SagaNeedsAttention: the saga has no answer yet.

    """
    ticket = await _ticket(request, body)
    if isinstance(ticket, Answer):
        return ticket
    if http.prefers_async(request):
        view = AcceptedView(correlation_id=correlation.current(), saga_id=ticket.saga_id)
        return Answer.of(view, 202, location=answers.saga_url(ticket.saga_id))
    answer = await _wait(request, ticket)
    if answer is None:
        raise await _why_not(request, ticket)
    await failpoints.SAGA_ANSWERED()
    return _replayed(request, answer) if ticket.twin else answer


async def _ticket(request: web.Request, body: CreateAndConfirmOrder) -> Ticket | Answer:
    """Start a saga, join one, or find the answer of one that is over."""
    key = request[KEY]
    kept = await request.app[KEYS].find(key)
    if kept is None:
        saga = _new_saga(body, key)
        try:
            await request.app[DRIVER].start(saga, key, detached=http.prefers_async(request))
        except KeyTaken:
            kept = await request.app[KEYS].find(key)
        else:
            request.app[KEYS].count("executed")
            return Ticket(saga.id, key, twin=False)
    if kept is None or kept.resource is None:
        raise KeyInProgress("The first request with this key was just undone; ask again.")
    return _replayed(request, kept.answer) if kept.answer else Ticket(kept.resource, key, twin=True)


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
        key_scope=key.scope,
        key_value=key.value,
        lease_token=1,
    )


async def _wait(request: web.Request, ticket: Ticket) -> Answer | None:
    """Wait for the answer, wherever the saga is driven; if nobody drives it, drive it here.

    None says that there was none in time, or that waiting brings none.
    """
    driver, settings = request.app[DRIVER], request.app[SETTINGS]
    patience = http.preferred_wait(request, settings.join_timeout if ticket.twin else settings.answer_timeout)
    deadline, pause = monotonic() + patience, FIRST_POLL_SECONDS
    while True:
        task = driver.task(ticket.saga_id)
        if task is not None:
            await asyncio.wait([task], timeout=max(0, deadline - monotonic()))
            if task.done() and not task.cancelled() and (answer := task.result()) is not None:
                return answer
        # Also after a task of our own: another replica may have taken the saga over and ended it.
        kept = await request.app[KEYS].find(ticket.key)
        if kept is None or kept.answer is not None:
            return kept.answer if kept else None
        if task is not None or monotonic() > deadline or await _needs_attention(request, ticket):
            return None
        if not await driver.take_over(ticket.saga_id):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_POLL_SECONDS)


async def _needs_attention(request: web.Request, ticket: Ticket) -> bool:
    async with request.app[DATABASE].read() as session:
        return (await queries.get_saga(session, ticket.saga_id)).status == Status.NEEDS_ATTENTION


async def _why_not(request: web.Request, ticket: Ticket) -> Problem:
    async with request.app[DATABASE].read() as session:
        saga = await queries.get_saga(session, ticket.saga_id)
    if ticket.twin and saga.status in UNFINISHED and not saga.is_paused:
        return KeyInProgress(
            "The first request with this key is still running; ask again in a moment.",
            headers={"Location": answers.saga_url(saga.id)},
            saga_id=saga.id,
            saga=answers.saga_url(saga.id),
        )
    return answers.unfinished(saga)


def _replayed(request: web.Request, answer: Answer) -> Answer:
    request.app[KEYS].count("replayed")
    return Answer(answer.status, answer.body, {**answer.headers, **REPLAYED}, answer.content_type)
