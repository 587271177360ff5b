"""What happens around every request, outermost first.

    observe   the span, the metrics, the access line, the correlation id
    cors      headers for browsers, on errors too
    problems  every failure becomes problem+json

`observe` is outermost so that it sees the status the caller gets; `problems` is innermost so that
the others only ever see answers.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import NoReturn, cast

import structlog
from aiohttp import hdrs, web
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from chassis import correlation
from chassis.auth import principal
from chassis.auth.access import PRINCIPAL
from chassis.errors import (
    CONTENT_TYPE,
    BodyTimeout,
    BodyTooLarge,
    ExpectationFailed,
    FieldError,
    InternalError,
    MethodNotAllowed,
    Problem,
    RequestInvalid,
    RequestMalformed,
    RouteNotFound,
)
from chassis.http import SETTINGS
from chassis.lifecycle import LIFECYCLE
from chassis.routes import members_of
from chassis.telemetry import spans, traces
from chassis.telemetry.metrics import HTTP_SERVER_ACTIVE, HTTP_SERVER_DURATION

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROBLEM = web.RequestKey("problem", Problem)
SLOW_SECONDS = 1
MAX_TRACE_HEADER = 1024
"""Characters; longer baggage takes OpenTelemetry's parser a quarter of a second."""
_TRACE_HEADERS = tuple(propagate.get_global_textmap().fields)
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_EXPOSED = "ETag, Location, Retry-After, WWW-Authenticate, Idempotent-Replayed, X-Correlation-Id"
_ALLOWED = (
    "Authorization, Content-Type, Idempotency-Key, X-Idempotency-Key, If-Match, If-None-Match, Prefer, "
    "X-Correlation-Id, traceparent, tracestate, baggage"
)
log = structlog.get_logger(__name__)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request a span, a correlation id, one access line and its place in the metrics."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unmatched"
    method = request.method if request.method in _METHODS else "_OTHER"
    context = propagate.extract(_carrier(request))
    span = traces.tracer.start_span(
        f"{method} {route}",
        context=context,
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": route, "url.path": request.rel_url.raw_path},
    )
    context = trace.set_span_in_context(span, context)
    given = request.headers.get(correlation.HEADER, "")
    value = given if correlation.is_valid(given) else correlation.current(context)
    token = otel_context.attach(correlation.carried(value, context))
    started = perf_counter()
    HTTP_SERVER_ACTIVE.inc()
    status = 499  # the connection went away: nothing was answered
    try:
        response = await handler(request)
        status = response.status
        response.headers[correlation.HEADER] = correlation.current()
        if request.app[LIFECYCLE].draining:
            response.force_close()
        return response
    finally:
        HTTP_SERVER_ACTIVE.dec()
        seconds = perf_counter() - started
        problem = request.get(PROBLEM)
        code = problem.code if problem is not None else ""
        HTTP_SERVER_DURATION.labels(method, route, status, code).observe(seconds, _exemplar(span))
        if span.is_recording():
            _describe(span, status, code)
        span.end()
        log.log(
            30 if seconds > SLOW_SECONDS else 20,
            "request",
            http_method=method,
            http_route=route,
            http_status=status,
            duration_ms=round(seconds * 1000, 2),
            **({"error_code": code, **_cause_of(problem)} if problem is not None else {}),
            **principal.told(request.get(PRINCIPAL, principal.ANONYMOUS)),
        )
        otel_context.detach(token)


def _carrier(request: web.Request) -> dict[str, str]:
    """The headers of a trace that are worth reading; a broken one is as good as none (W3C Trace Context)."""
    given = ((name, request.headers.get(name, "")) for name in _TRACE_HEADERS)
    return {name: value for name, value in given if value.isascii() and 0 < len(value) <= MAX_TRACE_HEADER}


def _exemplar(span: Span) -> dict[str, str] | None:
    context = span.get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id)} if context.trace_flags.sampled else None


def _cause_of(problem: Problem) -> dict[str, str]:
    """What broke, where it was not the caller: the error of a driver or a client that the problem hides."""
    cause = problem.__cause__
    if cause is None or problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return {}
    of_driver = getattr(cause, "orig", None)  # no other error's number is one of the database
    return {"error.type": type(cause).__name__} if of_driver is None else spans.failure_of(of_driver)


def _describe(span: Span, status: int, code: str) -> None:
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("correlation_id", correlation.current())
    if code:
        span.set_attribute("error.type", code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR))


@web.middleware
async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer preflights and let the configured origins read every answer, errors included."""
    origin = request.headers.get(hdrs.ORIGIN)
    origins = request.app[SETTINGS].cors_origins
    if origin is None or not (origin in origins or "*" in origins):
        response = await handler(request)
        if origins:  # a cache must not hand this answer to another origin
            response.headers.add(hdrs.VARY, "Origin")
        return response
    if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
        response = web.Response(status=204)
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, PATCH"
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _ALLOWED
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
    else:
        response = await handler(request)
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if "*" in origins else origin
    response.headers.add(hdrs.VARY, "Origin")
    return response


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Render every failure as problem+json; what we did not foresee is logged and becomes a plain 500."""
    try:
        given = request.headers.get(correlation.HEADER)
        if given is not None and not correlation.is_valid(given):
            wants = FieldError(f"header:{correlation.HEADER}", f"Wants {correlation.PATTERN}.")
            raise RequestInvalid("The correlation id is not valid.", errors=[wants])  # noqa: TRY301 - rendered below
        return await handler(request)
    except Problem as problem:
        return render(request, problem)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is no failure
            raise
        return render(request, _from_router(request, error))
    except Exception:
        log.exception("unhandled error", http_method=request.method)
        return render(request, InternalError("The failure was logged; the ids below find it."))


def render(request: web.Request, problem: Problem) -> web.Response:
    """The problem as a response to this request."""
    request[PROBLEM] = problem
    problem.members = {**members_of(request), **problem.members}
    # After a timeout the rest of the body may still come: it is not the next request.
    return refusal(request, problem, closes=isinstance(problem, BodyTimeout))


def refusal(request: web.BaseRequest, problem: Problem, *, closes: bool) -> web.Response:
    """The problem as a response with the ids of the current context; may close the connection."""
    body = problem.render(
        instance=request.path, correlation_id=correlation.current(), trace_id=correlation.trace_id()
    )
    headers = {**problem.headers, correlation.HEADER: correlation.current()}
    response = web.Response(
        status=problem.status, body=body, headers=headers, content_type=CONTENT_TYPE, charset="utf-8"
    )
    if closes:
        response.force_close()
    return response


Server = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def refusals_of_aiohttp(serve: Server) -> Server:
    """Let what aiohttp refuses before any middleware (`Expect`) go through them, too."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await serve(request)
        except web.HTTPException as error:
            refused = error
        except UnicodeEncodeError:  # aiohttp quotes the expectation, and the header may hold any bytes
            refused = web.HTTPExpectationFailed()
        refuse = partial(problems, handler=partial(_raise, refused))
        return await observe(cast("web.Request", request), refuse)

    return handle


async def _raise(error: web.HTTPException, _request: web.Request) -> NoReturn:
    raise error


def _from_router(request: web.Request, error: web.HTTPException) -> Problem:
    """What aiohttp itself refuses, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"This path takes {allowed}.", headers={hdrs.ALLOW: allowed})
    match error.status:
        case 404:
            return RouteNotFound("No operation has this path; GET / lists where the documents are.")
        case 413:
            return BodyTooLarge(f"The body may have at most {request.app[SETTINGS].max_body_bytes} bytes.")
        case 417:
            return ExpectationFailed("Only 100-continue can be expected.")
        case _:
            return RequestMalformed("The request cannot be served as it is.")
