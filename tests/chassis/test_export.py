from collections.abc import Sequence
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from chassis.telemetry.export import Processor
from tests.observed import Sample


class Collector(SpanExporter):
    """Takes spans once it is let to; `answer` is what becomes of them."""

    def __init__(self, answer: SpanExportResult | Exception = SpanExportResult.SUCCESS) -> None:
        self.answer = answer
        self.names: list[str] = []
        self.asked, self.open = Event(), Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        assert self.open.wait(60)
        self.names += [span.name for span in spans]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def end_spans(processor: Processor, names: Sequence[str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for name in names:
        provider.get_tracer("test").start_span(name).end()


def test_spans_that_were_sent_are_counted() -> None:
    exported = Sample("b2b_spans_total", result="exported")
    collector = Collector()
    collector.open.set()
    processor = Processor(collector)

    end_spans(processor, ["a", "b", "c"])
    processor.shutdown()

    assert (collector.names, exported.moved) == (["a", "b", "c"], 3)


@pytest.mark.parametrize("answer", [SpanExportResult.FAILURE, ConnectionError("down")])
def test_spans_that_could_not_be_sent_are_counted(answer: SpanExportResult | Exception) -> None:
    failed, exported = (Sample("b2b_spans_total", result=result) for result in ("failed", "exported"))
    collector = Collector(answer)
    collector.open.set()
    processor = Processor(collector)

    end_spans(processor, ["a", "b"])
    processor.shutdown()

    assert (failed.moved, exported.moved) == (2, 0)


def test_spans_that_find_the_queue_full_are_counted_and_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    dropped, exported = (Sample("b2b_spans_total", result=result) for result in ("dropped", "exported"))
    collector = Collector()
    processor = Processor(collector)

    end_spans(processor, ["1", "2"])
    assert collector.asked.wait(60)  # and does not answer: these two have left the queue
    end_spans(processor, ["3", "4", "5", "6", "7", "8"])
    collector.open.set()
    processor.shutdown()

    assert (dropped.moved, exported.moved) == (2, 6)
    assert collector.names == ["1", "2", "5", "6", "7", "8"]
