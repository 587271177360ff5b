"""Our side of a call to a peer: deadline, retries, service token, trace and correlation, one body limit.

aiohttp repeats GET on a dead kept-alive connection but never POST, so every retry is made here, and
only of calls that are safe to repeat: reads, and writes that carry an idempotency key. Each attempt
is a CLIENT span of its own.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http import HTTPStatus
from time import perf_counter
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import stamina
from aiohttp import hdrs, web
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.trace import Span

from chassis import __version__, correlation
from chassis.errors import KeyInProgress, PeerBroken, PeerProblem, PeerTimeout, PeerUnavailable, RouteNotFound
from chassis.telemetry.metrics import HTTP_CLIENT_DURATION

_MAX_ANSWER_BYTES = 8_388_608
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_PORTS = {"http": 80, "https": 443}
_MISDIRECTED = frozenset({301, 302, 303, 307, 308, 405})
_resends: ContextVar[int] = ContextVar("resends", default=0)


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """A peer's answer below 500: `body` is a parsed JSON object."""

    status: int
    body: dict[str, Any]
    attempts: int = 1


class Peer:
    """One service that this one calls.

    `token` tells the service token to call with, asked anew for every attempt since it may be rotated.
    `attempt_seconds` bounds one attempt, `deadline_seconds` all of them together.
    """

    def __init__(  # noqa: PLR0913 - where it is, what it wants to see, how long it may take
        self,
        session: aiohttp.ClientSession,
        name: str,
        base_url: str,
        *,
        token: Callable[[], str],
        attempt_seconds: float,
        deadline_seconds: float,
    ) -> None:
        self.name = name
        self._token = token
        self._session = session
        self._base_url = base_url
        parts = urlsplit(base_url)
        self.address, self.port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._timeout = aiohttp.ClientTimeout(total=attempt_seconds)
        self._deadline = deadline_seconds

    async def get(self, path: str) -> PeerAnswer:
        """Read."""
        return await self._call(hdrs.METH_GET, path, {}, None)

    async def post(
        self,
        path: str,
        body: Any,  # noqa: ANN401 - JSON
        *,
        key: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> PeerAnswer:
        """Write, once: the peer knows a repetition by its idempotency key."""
        return await self._call(hdrs.METH_POST, path, {**headers, "Idempotency-Key": key}, body)

    async def _call(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> PeerAnswer:  # noqa: ANN401 - JSON
        """Call until there is an answer to act on.

        Raises:
            PeerUnavailable, PeerTimeout, PeerBroken: there was none within the deadline.

        """
        headers = {**headers, correlation.HEADER: correlation.current()}
        attempts = stamina.retry_context(
            on=PeerProblem,
            attempts=None,
            timeout=self._deadline,
            wait_initial=0.05,
            wait_max=2,
            wait_jitter=0.1,
        )
        async for attempt in attempts:
            with attempt:
                _resends.set(attempt.num - 1)
                try:
                    answer = await self._attempt(method, path, headers, body)
                except PeerProblem as problem:
                    problem.attempts = attempt.num
                    raise
                return replace(answer, attempts=attempt.num)
        raise AssertionError("the loop above returns or raises")  # pragma: no cover - for the type checker

    async def _attempt(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> PeerAnswer:  # noqa: ANN401 - JSON
        """Call once, and put it into the metrics: by its status, or by the reason why there is none."""
        started, status, error_type = perf_counter(), "", ""
        try:
            answer = await self._exchange(method, path, headers, body)
        except PeerProblem as problem:
            error_type = problem.code
            raise
        else:
            status = str(answer.status)
            return answer
        finally:
            labels = (method, self.address, self.port, status, error_type)
            HTTP_CLIENT_DURATION.labels(*labels).observe(perf_counter() - started)

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> PeerAnswer:  # noqa: ANN401 - JSON
        token = self._token()
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                headers={**headers, hdrs.AUTHORIZATION: f"Bearer {token}"},
                json=body,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                body = await self._read(response, token)
                answer = PeerAnswer(response.status, json.loads(body))
        except TimeoutError:
            raise PeerTimeout(f"{self.name} did not answer in time.") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise PeerUnavailable(f"{self.name} cannot be reached.") from error
        except (aiohttp.ClientError, ValueError, RecursionError) as error:
            raise PeerBroken(f"{self.name} gave an answer that is no JSON.") from error
        if not isinstance(answer.body, dict):
            raise PeerBroken(f"{self.name} gave an answer that is no JSON object.")
        code = answer.body.get("code")
        if code == KeyInProgress.code:
            raise PeerUnavailable(f"{self.name} is still at work on this call.")
        if answer.status in _MISDIRECTED or code == RouteNotFound.code:
            raise PeerBroken(f"{self.name} is not what answers at its address.")
        return answer

    async def _read(self, response: aiohttp.ClientResponse, token: str) -> bytes:
        """The body of an answer that is worth reading, within its limit."""
        if response.status in _RETRIED_STATUSES:
            raise PeerUnavailable(f"{self.name} answered {response.status}.")
        if response.status == HTTPStatus.UNAUTHORIZED and token != self._token():
            raise PeerUnavailable(f"{self.name} was called with a token that was just rotated.")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                raise PeerBroken(f"{self.name} gave an answer over the limit.")
        return bytes(body)


def _count_resends(span: Span, _parameters: aiohttp.TraceRequestStartParams) -> None:
    """Say on the CLIENT span which repetition it is."""
    if _resends.get():
        span.set_attribute("http.request.resend_count", _resends.get())


@asynccontextmanager
async def traced_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client session whose calls are spans and carry the trace on."""
    # The instrumentation still defaults to the attribute names from before they were stable.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    instrumentor = AioHttpClientInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(request_hook=_count_resends)
    connector = aiohttp.TCPConnector(limit=200, keepalive_timeout=30)
    async with aiohttp.ClientSession(
        connector=connector, headers={hdrs.USER_AGENT: f"b2b-orders/{__version__}"}
    ) as session:
        yield session


HTTP = web.AppKey("http_client", aiohttp.ClientSession)


async def http_client(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[HTTP]`, the one client session of the service."""
    async with traced_session() as session:
        app[HTTP] = session
        yield
