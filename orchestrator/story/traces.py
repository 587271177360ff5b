"""Where spans come from: a file of OTLP JSON, or the query address of Jaeger."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from chassis import __version__
from chassis.telemetry.traces import named
from orchestrator.settings import Settings
from orchestrator.story.spans import NotOtlp, Span, of_json
from orchestrator.story.story import Story

MAX_BYTES = 64 * 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)


class Unreadable(Exception):  # noqa: N818 - says why
    """The spans cannot be had."""


def is_address(source: str) -> bool:
    """Whether this is an address and no file."""
    return source.startswith(("http://", "https://"))


async def spans_of(story: Story, source: str) -> list[Span]:
    """The spans of the story's traces, by their start; what is missing becomes a gap of the story.

    Raises:
        Unreadable: there is no such file, nobody answers, or it is no OTLP.

    """
    found = _belonging(story, await _from_jaeger(story, source) if is_address(source) else _from_file(source))
    seen = {span.trace_id for span in found}
    story.gaps += [
        f"Trace {trace_id} is not there: it was not sampled, was lost, or is kept elsewhere."
        for trace_id in story.trace_ids
        if trace_id not in seen
    ]
    return found


def by_trace(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans of each trace, the trace that began first as the first one."""
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    return sorted(traces.values(), key=lambda trace: trace[0].start)


def _belonging(story: Story, spans: Iterable[Span]) -> list[Span]:
    """The spans of traces that are known, are linked to a known one, or do something to a saga or order.

    Who looks at a saga names it, too, and does nothing to it.
    """
    once = {(span.trace_id, span.span_id): span for span in spans}.values()
    known = set(story.trace_ids)
    sagas = {saga.id for saga in story.sagas}
    orders = {order.view["id"] for order in story.orders}
    wanted = known | {
        span.trace_id
        for span in once
        if any(trace_id in known for trace_id, _ in span.links)
        or (
            span.attributes.get("http.request.method") != "GET"
            and (span.attributes.get("saga_id") in sagas or span.attributes.get("order_id") in orders)
        )
    }
    return sorted((span for span in once if span.trace_id in wanted), key=lambda span: span.start)


def _from_file(source: str) -> list[Span]:
    try:
        with Path(source).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise NotOtlp(f"more than {MAX_BYTES} bytes")
        return of_json(content.decode())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Unreadable(f"{source}: {reason}") from None


async def _from_jaeger(story: Story, url: str) -> list[Span]:
    url = url.rstrip("/")
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            ids = dict.fromkeys(story.trace_ids)
            for saga in story.sagas:
                ids |= dict.fromkeys(await _search(http, url, saga.id, saga.created_at))
            found: list[Span] = []
            for trace_id in ids:
                found += await _trace(http, url, trace_id)
            return found
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreadable(f"{url} cannot be asked: {error or type(error).__name__}") from None
    except ValueError as error:
        raise Unreadable(f"{url} does not answer like Jaeger: {error}") from None


async def _trace(http: aiohttp.ClientSession, url: str, trace_id: str) -> Sequence[Span]:
    """One trace as OTLP; empty if Jaeger does not have it."""
    body = await _get(http, f"{url}/api/v3/traces/{trace_id}", {})
    return [] if body is None else of_json(body)


async def _search(http: aiohttp.ClientSession, url: str, saga_id: str, since: datetime) -> list[str]:
    """The ids of traces that name the saga. Only Jaeger's older API searches by attributes."""
    microseconds = [int(moment.timestamp() * 1_000_000) for moment in (since, datetime.now(UTC))]
    query = {
        "service": named(Settings.service, __version__)[0],
        "tags": json.dumps({"saga_id": saga_id}),
        "start": str(microseconds[0] - 60_000_000),  # clocks differ
        "end": str(microseconds[1] + 60_000_000),
        "limit": "100",
    }
    body = await _get(http, f"{url}/api/traces", query)
    found: Any = {} if body is None else json.loads(body)
    traces = found.get("data") if isinstance(found, dict) else None
    return [
        str(trace["traceID"]).zfill(32)
        for trace in traces or []
        if isinstance(trace, dict) and "traceID" in trace
    ]


async def _get(http: aiohttp.ClientSession, url: str, query: dict[str, str]) -> str | None:
    """The body of an answer; None for 404.

    Raises:
        NotOtlp: it is another status, or too long.

    """
    async with http.get(url, params=query) as response:
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if response.status != HTTPStatus.OK:
            raise NotOtlp(f"{response.status} from {response.url.path}")
        chunks, room = [], MAX_BYTES
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            room -= len(chunk)
            if room < 0:
                raise NotOtlp(f"more than {MAX_BYTES} bytes")
        return b"".join(chunks).decode()
