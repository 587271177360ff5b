"""A small receiver of traces (OTLP over HTTP).

async with receive_traces() as traces:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
    ...
    console.print(tree(traces.of(trace_id), console.width))
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from orchestrator.story.spans import Span, of_resources

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
_PROTOBUF = "application/x-protobuf"


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
    return of_resources(ExportTraceServiceRequest.FromString(body).resource_spans)
