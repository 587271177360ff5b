"""One order of a job over HTTP: tried with one key until it has an end that can be reported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import stamina
from aiohttp import hdrs
from opentelemetry import context as otel_context
from pydantic import ValidationError

from chassis import correlation
from chassis.auth.files import WatchedFile
from chassis.client import traced_session
from chassis.errors import FieldError, KeyReused, PeerBroken, PeerTimeout, PeerUnavailable
from chassis.http import View
from chassis.idempotency import HEADERS
from chassis.telemetry import traces
from orchestrator.answers import JOB_PATH
from orchestrator.errors import SagaNeedsAttention
from orchestrator.job.orders import Order
from orchestrator.job.results import Result, Status
from orchestrator.options import access_token
from orchestrator.schemas import JobView

TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5)  # an orchestrator answers within 15 s
MAX_PAUSE_SECONDS = 5
_REFUSES_THE_BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_REFUSES_US = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_RETRIED = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class _Unanswered(Exception):  # noqa: N818 - an outcome, not an error
    """This attempt brought no answer to act on; another one, `after` so many seconds, may."""

    def __init__(
        self, code: str, detail: str, *, saga_id: str | None = None, after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.said = {"code": code, "detail": detail, "saga_id": saga_id}
        self.after = after


class _Problem(View):
    """What a problem of an orchestrator says, and what anything else does not."""

    code: str | None = None
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    saga_id: str | None = None
    retryable: bool = False
    retry_needs_new_key: bool = False


class Orchestrator:
    """The orchestrator, as a job sees it; `waiting` has the keys of orders to be tried again, and why.

    An order is tried for `patience` seconds. Once none has had an answer for so long, each is tried
    only once, so that a long file comes to its end although the orchestrator is down. `token_file` has the
    access token; it is read again when it changes, since a job may outlive its token.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, patience: float, token_file: Path | None = None
    ) -> None:
        self.waiting: dict[str, str] = {}
        self._http = http
        self._url = url
        self._patience = patience
        self._token = WatchedFile(token_file, access_token) if token_file is not None else None
        self._unanswered_since: float | None = None
        self._hurried = False

    def hurry(self) -> None:
        """Let no attempt be followed by another."""
        self._hurried = True

    async def run(self, order: Order) -> Result:
        """Do the main job for this order, in a trace of its own that is linked to the job's."""
        links = traces.links_to(traces.traceparent())
        otel_context.attach(otel_context.Context())
        if order.content.correlation_id is not None:
            correlation.adopt(order.content.correlation_id)
        with traces.tracer.start_as_current_span("job order", links=links) as span:
            result = await self._tried(order)
            told: dict[str, str | int | None] = {
                "job.line": order.line,
                "job.status": result.status,
                "job.attempts": result.attempts,
                "saga_id": result.saga_id,
                "order_id": result.order_id,
            }
            span.set_attributes({name: value for name, value in told.items() if value is not None})
            return result

    async def _tried(self, order: Order) -> Result:
        said: dict[str, Any]
        number = 0
        deadline = monotonic() + self._patience

        def again(error: Exception) -> bool | float:
            return isinstance(error, _Unanswered) and self._pause(order, error, deadline)

        attempts = stamina.retry_context(
            on=again,
            attempts=None,
            timeout=self._patience,
            wait_initial=0.25,
            wait_max=MAX_PAUSE_SECONDS,
            wait_jitter=0.25,
        )
        try:
            async for attempt in attempts:
                number = attempt.num
                with attempt:
                    self.waiting.pop(order.key, None)
                    result = await self._attempt(order, number)
                    self._unanswered_since = None
                    return result
        except _Unanswered as unanswered:
            said = unanswered.said
        except asyncio.CancelledError:
            # The operator does not want to wait; whether the order is done, the next run will tell.
            said = {"code": "job.interrupted", "detail": "The job was stopped before there was an answer."}
        finally:
            self.waiting.pop(order.key, None)
        return _unfinished(order, number).model_copy(update=said)

    def _pause(self, order: Order, unanswered: _Unanswered, deadline: float) -> bool | float:
        """The seconds to wait, True for as long as is usual, False for no more attempts."""
        now = monotonic()
        if self._unanswered_since is None:
            self._unanswered_since = now
        out_of_patience = now - self._unanswered_since >= self._patience
        if self._hurried or out_of_patience or now + (unanswered.after or 0) >= deadline:
            return False
        self.waiting[order.key] = str(unanswered)
        return True if unanswered.after is None else unanswered.after

    async def _attempt(self, order: Order, number: int) -> Result:
        """Ask once.

        Raises:
            _Unanswered: it is worth another try.

        """
        headers = {HEADERS[0]: order.key, correlation.HEADER: correlation.current()}
        if self._token is not None:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self._token.value}"
        try:
            async with self._http.post(
                self._url + JOB_PATH, json=order.body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                body = await response.read()
        except TimeoutError:
            raise _Unanswered(PeerTimeout.code, f"{self._url} does not answer in time.") from None
        except aiohttp.ClientError:
            raise _Unanswered(PeerUnavailable.code, f"{self._url} cannot be reached.") from None

        replayed = response.headers.get("Idempotent-Replayed") == "true"
        said = _done(body) if response.status == HTTPStatus.CREATED else self._not_done(response, body)
        return _unfinished(order, number).model_copy(update={"replayed": replayed, **said})

    def _not_done(self, response: aiohttp.ClientResponse, body: bytes) -> dict[str, Any]:
        """What an answer that is no success says of the order.

        Raises:
            _Unanswered: that it is worth another try.

        """
        problem = _problem(body)
        said = {"code": problem.code, "detail": problem.detail, "saga_id": problem.saga_id}
        if problem.code == KeyReused.code:
            detail = "The reference was used before, for an order with other content."
            return {**said, "status": Status.INVALID, "detail": detail}
        if problem.code is not None and response.status in _REFUSES_THE_BODY:
            faults = [f"{error.pointer}: {error.detail}" for error in problem.errors]
            return {**said, "status": Status.INVALID, "detail": " ".join(faults) or problem.detail}
        if problem.code is not None and response.status in _REFUSES_US:
            return said  # the order may be as good as any: run it again, with another token
        if problem.retry_needs_new_key:
            return {**said, "status": Status.REFUSED}
        if problem.code == SagaNeedsAttention.code:
            return said  # waiting does not help, an operator has to
        if problem.retryable or response.status in _RETRIED:
            after = response.headers.get(hdrs.RETRY_AFTER, "")
            raise _Unanswered(
                problem.code or PeerUnavailable.code,
                problem.detail or f"{self._url} answered {response.status}.",
                saga_id=problem.saga_id,
                after=float(after) if after.isdecimal() else None,
            )
        detail = f"{self._url} answered {response.status}; is it an orchestrator? {problem.detail}"
        return {**said, "code": problem.code or PeerBroken.code, "detail": detail.rstrip()}


@asynccontextmanager
async def connected(url: str, patience: float, token_file: Path | None = None) -> AsyncIterator[Orchestrator]:
    """The orchestrator at this address, through the client session that the services have."""
    async with traced_session() as http:
        yield Orchestrator(http, url, patience, token_file)


def _unfinished(order: Order, attempts: int) -> Result:
    return Result(line=order.line, reference=order.reference, status=Status.UNFINISHED, attempts=attempts)


def _done(body: bytes) -> dict[str, Any]:
    try:
        job = JobView.model_validate_json(body)
    except ValidationError:
        return {"code": PeerBroken.code, "detail": "The answer is not the one of an orchestrator."}
    order = job.data.order
    return {
        "status": Status.SUCCEEDED,
        "order_number": order.order_number,
        "order_id": order.id,
        "saga_id": job.saga_id,
        "total_cents": order.total_cents,
    }


def _problem(body: bytes) -> _Problem:
    try:
        return _Problem.model_validate_json(body)
    except ValidationError:
        return _Problem()
