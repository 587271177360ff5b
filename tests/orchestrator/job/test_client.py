from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.client import HOST
from tests.orchestrator.job.rows import jsonl_of, order
from tests.orchestrator.job.system import Handler, System


def answers(status: int, **problem: Any) -> Handler:
    async def fault(_request: web.Request) -> web.StreamResponse:
        return web.json_response(problem or None, status=status, headers={"Retry-After": "0"})

    return fault


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Span]]]:
    """Something that takes spans over OTLP."""
    spans: list[Span] = []

    async def receive(request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield f"http://{HOST}:{runner.addresses[0][1]}", spans
    await runner.cleanup()


async def test_with_the_orchestrator_down_orders_are_unfinished_and_the_next_run_completes_them(
    system: System, nobody: str, tmp_path: Path
) -> None:
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(20)))

    down = await system.job(file, "--url", nobody, "--patience", 1)
    up = await system.job(file)

    assert down.exit_code == 1
    assert (
        down.of("status", "code", "detail")
        == [("unfinished", "peer.unavailable", f"{nobody} cannot be reached.")] * 20
    )
    # Once nothing has been heard of it for so long, it is not waited for again and again.
    assert down.results[0]["attempts"] > 1
    assert down.results[-1]["attempts"] == 1
    assert "and 10 more unfinished" in down.err
    assert "Run the same file again" in down.err
    assert up.exit_code == 0
    assert set(up.of("status", "replayed")) == {("succeeded", False)}
    assert await system.sold() == 20


@pytest.mark.parametrize(
    "fault",
    [
        answers(503, code="saga.unfinished", detail="Not yet.", retryable=True),
        answers(409, code="idempotency.in_progress", detail="Not yet.", retryable=True),
        answers(502),
        answers(504),
        breaks_off,
    ],
    ids=["503", "409 in progress", "502", "504", "broken connection"],
)
async def test_what_may_pass_is_tried_again_with_the_same_key(
    system: System, tmp_path: Path, fault: Handler
) -> None:
    system.gate.faults = [fault, fault]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.exit_code == 0, done.err
    assert done.of("status", "attempts", "replayed") == [("succeeded", 3, False)]
    assert await system.sold() == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (answers(503, code="saga.needs_attention", detail="See the saga.", retryable=True), None),
        (answers(404, code="route.not_found", detail="Nothing here."), None),
        (answers(500, code="internal.error", detail="A bug."), None),
        (answers(404), "peer.broken"),
        (answers(201), "peer.broken"),
    ],
)
async def test_what_waiting_does_not_help_is_unfinished_at_once(
    system: System, tmp_path: Path, fault: Handler, code: str | None
) -> None:
    system.gate.faults = [fault]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.exit_code == 1
    assert done.of("status", "attempts") == [("unfinished", 1)]
    if code is not None:
        assert done.of("code") == [(code,)]


async def test_retry_after_beyond_all_patience_is_not_waited_for(system: System, tmp_path: Path) -> None:
    async def much_later(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "3600"})

    system.gate.faults = [much_later]

    done = await system.run(jsonl_of(tmp_path, order("A")))

    assert done.of("status", "code", "attempts") == [("unfinished", "peer.unavailable", 1)]
    assert "answered 503" in done.results[0]["detail"]


async def test_every_order_is_a_trace_that_is_linked_to_the_job(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A"), order("B"), order("C", correlation_id="req-456"))

    async with collector() as (url, spans):
        done = await system.job(file, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": url})

    assert done.exit_code == 0, done.err
    (job,) = [span for span in spans if span.name == "job"]
    tried = [span for span in spans if span.name == "job order"]
    assert len({span.trace_id for span in (job, *tried)}) == 4
    assert all(span.parent_span_id == b"" for span in tried)
    assert [[link.span_id for link in span.links] for span in tried] == [[job.span_id]] * 3
    calls = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert {(call.trace_id, call.parent_span_id) for call in calls} == {
        (span.trace_id, span.span_id) for span in tried
    }
    named = {made["id"]: made["correlation_id"] for made in await system.all_orders()}
    traces = {span.trace_id.hex() for span in tried}
    assert named[done.results[2]["order_id"]] == "req-456"
    assert {named[result["order_id"]] for result in done.results[:2]} < traces
