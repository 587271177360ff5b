"""What one connection may cost: the guards that aiohttp's own protocol does not have.

half a request head      408 after HEAD_TIMEOUT, however slowly its bytes come
an answer nobody takes   the connection is cut off after BODY_TIMEOUT
too many connections     the oldest one that waits for a request makes room; 503 if all are at work
bytes that are no HTTP   a problem, like every other refusal
"""

import asyncio

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from opentelemetry.trace import SpanKind

from chassis.errors import (
    ConnectionsExhausted,
    HeadersTooLarge,
    HeadTimeout,
    InternalError,
    Problem,
    RequestMalformed,
)
from chassis.middlewares import refusal
from chassis.settings import Settings
from chassis.telemetry import traces

MAX_HEADERS = 64
MAX_HEADER_BYTES = 8190
log = structlog.get_logger(__name__)


class Server(web.Server):
    """Makes a Protocol for every connection."""

    settings: Settings

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        return Protocol(self, self.settings, loop=self._loop, **self._kwargs)


class Protocol(RequestHandler):
    """A connection and its deadlines."""

    def __init__(
        self, server: Server, settings: Settings, *, loop: asyncio.AbstractEventLoop, **options: object
    ) -> None:
        super().__init__(server, loop=loop, **options)  # type: ignore[arg-type]  # aiohttp's own, handed on
        self._settings = settings
        self._head_deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a request, or for the rest of its head."""
        return self._request_count == 0 or (self._waiter is not None and not self._waiter.done())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room for this one, if there are too many."""
        super().connection_made(transport)
        # What the kernel does not take counts as not taken, not only what is over 64 KiB.
        transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]  # it is a Transport
        assert self._manager is not None  # noqa: S101 - set by the constructor, for mypy
        others = self._manager.connections
        if len(others) > self._settings.max_connections:
            open_ones = (each for each in others if each is not self and each.transport is not None)
            waiting = next(
                (each for each in open_ones if isinstance(each, Protocol) and each.is_waiting), None
            )
            if waiting is not None:
                waiting.force_close()
            else:
                self._refuse(ConnectionsExhausted("All connections are at work; try again soon."))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the deadlines."""
        for deadline in (self._head_deadline, self._send_deadline):
            if deadline is not None:
                deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Let the deadline of a head run from its first byte on, until it is whole."""
        heads = self._request_count
        super().data_received(data)
        if self._request_count > heads:
            if self._head_deadline is not None:
                self._head_deadline.cancel()
                self._head_deadline = None
        elif self._head_deadline is None and self.is_waiting:
            seconds = self._settings.head_timeout
            late = HeadTimeout(f"The request head did not arrive within {seconds:g} s.")
            self._head_deadline = self._loop.call_later(seconds, self._refuse, late)

    def pause_writing(self) -> None:
        """Wait for the client to take the answer, but not for ever."""
        super().pause_writing()
        if self.transport is not None:
            self._send_deadline = self._loop.call_later(self._settings.body_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has taken it."""
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None
        super().resume_writing()

    def _refuse(self, problem: Problem) -> None:
        """Answer with this and close, as aiohttp does with bytes that its parser refused."""
        self._messages.append((_ErrInfo(int(problem.status), problem, problem.detail), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the middlewares: bytes that the parser refused, or no bytes at all."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun that cannot be finished") from exc
        problem = _from_parser(status, exc, message)
        with traces.tracer.start_as_current_span("request refused by the parser", kind=SpanKind.SERVER):
            if not isinstance(problem, InternalError):
                log.warning(
                    "request refused by the parser", error_code=problem.code, reason=type(exc).__name__
                )
            else:
                log.error("unhandled error", error_code=problem.code, exc_info=exc)
            return refusal(request, problem, closes=True)


def _from_parser(status: int, exc: BaseException | None, message: str | None) -> Problem:
    if isinstance(exc, Problem):
        return exc
    if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
        return HeadersTooLarge(f"At most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes each.")
    if status < 500:  # noqa: PLR2004 - the first status that is the server's fault
        return RequestMalformed("The bytes received are not a valid HTTP request.")
    return InternalError("The request could not be served.")
