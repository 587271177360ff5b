"""Spans on their way to the collector, counted: sent, failed, or dropped because the queue was full.

A collector that is down or slow costs a request nothing: spans wait in a bounded queue that a thread
empties. What did not fit or could not be sent is lost, but not unnoticed.
"""

import os
from collections.abc import Sequence
from threading import Lock

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from chassis.telemetry.metrics import SPANS

_DEFAULT_QUEUE = 2048
for _result in ("exported", "failed", "dropped"):
    SPANS.labels(_result)


class Processor(BatchSpanProcessor):
    """The batch processor of the SDK; it drops the oldest span when its queue is full, and tells nobody."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._room = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, _DEFAULT_QUEUE))
        self._waiting = 0
        self._lock = Lock()  # spans end on the event loop, batches are taken by a thread
        super().__init__(_Counted(exporter, self), max_queue_size=self._room)

    def on_end(self, span: ReadableSpan) -> None:
        """Put the span into the queue."""
        if span.context.trace_flags.sampled:
            with self._lock:
                full = self._waiting == self._room
                self._waiting += not full
            if full:
                SPANS.labels("dropped").inc()
        super().on_end(span)

    def took(self, count: int) -> None:
        """A batch has left the queue."""
        with self._lock:
            self._waiting -= count


class _Counted(SpanExporter):
    def __init__(self, exporter: SpanExporter, processor: Processor) -> None:
        self._exporter = exporter
        self._processor = processor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._processor.took(len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            SPANS.labels("exported" if result is SpanExportResult.SUCCESS else "failed").inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
