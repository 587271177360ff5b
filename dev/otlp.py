"""A small receiver of traces (OTLP over HTTP) that shows a trace as a tree.

async with receive_traces() as traces:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
    ...
    console.print(tree(traces.of(trace_id), console.width))
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span; its times are nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]

    @property
    def is_statement(self) -> bool:
        """Whether it is one statement sent to a database."""
        return "db.operation.name" in self.attributes

    @property
    def is_call(self) -> bool:
        """Whether it is a call to another service."""
        return self.kind == "CLIENT" and not self.is_statement


@dataclass(slots=True)
class Traces:
    """The spans received so far; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def of(self, trace_id: str) -> list[Span]:
        """The spans of one trace by their start, each once even if it was exported twice."""
        found = {span.span_id: span for span in self.spans if span.trace_id == trace_id}
        return sorted(found.values(), key=lambda span: span.start)

    async def complete(self, trace_id: str, parent_id: str, seconds: float) -> list[Span]:
        """Wait for the whole trace that a request with this `traceparent` began; empty if it never comes.

        It is whole when the request is its only root and each call has what it called: below that
        nothing can be missing, because a service exports its spans in the order in which they end.
        """
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            spans = self.of(trace_id)
            parents = {span.parent_id for span in spans}
            answered = all(span.span_id in parents for span in spans if span.is_call)
            if answered and parents - {span.span_id for span in spans} == {parent_id}:
                return spans
            await asyncio.sleep(0.05)
        return []


@asynccontextmanager
async def receive_traces() -> AsyncIterator[Traces]:
    """Receive what is exported to a free port, until the block ends."""

    async def export(request: web.Request) -> web.Response:
        traces.spans.extend(decode(await request.read()))
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type=_PROTOBUF)

    app = web.Application(client_max_size=MAX_REQUEST_BYTES)
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        traces = Traces(f"http://{HOST}:{runner.addresses[0][1]}")
        yield traces
    finally:
        await runner.cleanup()


def decode(body: bytes) -> list[Span]:
    """The spans of an export request in protobuf."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _span(str(_attributes(resource.resource.attributes).get("service.name", "")), span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:  # noqa: ANN401 - whatever the attribute is
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)
