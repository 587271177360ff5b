import asyncio

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode, format_span_id, format_trace_id

from dev.otlp import receive_traces


async def test_the_receiver_keeps_what_an_exporter_sends_compressed() -> None:
    async with receive_traces() as traces:
        provider = TracerProvider(resource=Resource({SERVICE_NAME: "orders"}))
        exporter = OTLPSpanExporter(f"{traces.url}/v1/traces", compression=Compression.Gzip)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("parent", attributes={"qty": 2, "skus": ["A", "B"]}) as parent:
            tracer.start_span("child").end()
            parent.set_status(Status(StatusCode.ERROR))
        context = parent.get_span_context()

        await asyncio.to_thread(provider.shutdown)

        first, second = traces.of(format_trace_id(context.trace_id))
        assert (first.name, first.service, first.kind, first.failed) == ("parent", "orders", "INTERNAL", True)
        assert first.attributes == {"qty": 2, "skus": ["A", "B"]}
        assert first.end > first.start > 0
        assert (second.name, second.parent_id, second.failed) == (
            "child",
            format_span_id(context.span_id),
            False,
        )
        assert traces.of("0" * 32) == []


async def test_a_trace_that_never_becomes_whole_is_not_waited_for_without_end() -> None:
    async with receive_traces() as traces:
        assert await traces.complete("0" * 32, "0" * 16, seconds=0.1) == []
