"""A small receiver of traces (OTLP over HTTP).

async with receive_traces() as traces:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
    ...
    console.print(tree(traces.of(trace_id), console.width))
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from aiohttp import web
from google.protobuf import json_format  # type: ignore[import-untyped]  # the package ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from orchestrator.story.spans import Span, of_resources

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
_IDS = ("traceId", "spanId", "parentSpanId")
_PROTOBUF = "application/x-protobuf"


@dataclass(slots=True)
class Traces:
    """The spans received so far; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""

    url: str
    spans: list[Span] = field(default_factory=list)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

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

    def write(self, file: Path) -> None:
        """Write what was received as a collector does: OTLP JSON, a request a line."""
        with file.open("w") as lines:
            for request in self.requests:
                document = json_format.MessageToDict(request)
                for resource in document["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        for span in scope["spans"]:
                            _name_in_hexadecimal(span, *span.get("links", ()))
                lines.write(json.dumps(document) + "\n")


@asynccontextmanager
async def receive_traces() -> AsyncIterator[Traces]:
    """Receive what is exported to a free port, until the block ends."""

    async def export(request: web.Request) -> web.Response:
        received = ExportTraceServiceRequest.FromString(await request.read())
        traces.requests.append(received)
        traces.spans.extend(of_resources(received.resource_spans))
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


def _name_in_hexadecimal(*found: dict[str, Any]) -> None:
    """Write ids as OTLP has them; JSON of protobuf has base64."""
    for each in found:
        each.update({name: base64.b64decode(each[name]).hex() for name in _IDS if name in each})
