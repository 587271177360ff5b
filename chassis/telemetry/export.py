"""Spans on their way to the collector, counted: sent, failed, or dropped because the queue was full.

A collector that is down or slow costs a request nothing: spans wait in a bounded queue that a thread
empties. What did not fit, could not be sent, or still waits when the process has waited long enough for
its end, is lost, but not unnoticed.
"""

import os
from collections.abc import Sequence
from threading import Lock

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from chassis import correlation
from chassis.telemetry.metrics import SPANS

LAST_SECONDS = 3
"""How long the end of a process waits for its last spans to be sent."""
_DEFAULT_QUEUE = 2048
log = structlog.get_logger(__name__)
for _result in ("exported", "failed", "dropped"):
    SPANS.labels(_result)


class Processor(BatchSpanProcessor):
    """The batch processor of the SDK; it drops the oldest span when its queue is full, and tells nobody.

    Every span gets the correlation id that it is begun with.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._room = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, _DEFAULT_QUEUE))
        self._waiting = 0
        self._closed = False
        self._lock = Lock()  # spans end on the event loop, batches are taken by a thread
        super().__init__(_Counted(exporter, self), max_queue_size=self._room)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Let the span carry the correlation id, whoever makes it: the client instrumentation knows none."""
        value = correlation.current(parent_context)
        # A span that begins a trace without one is what the correlation id is taken from.
        span.set_attribute("correlation_id", value if value != correlation.NO_TRACE else _trace_of(span))

    def on_end(self, span: ReadableSpan) -> None:
        """Put the span into the queue."""
        if not span.context.trace_flags.sampled:
            return
        with self._lock:
            closed, full = self._closed, self._waiting == self._room
            self._waiting += not (closed or full)
        if closed or full:
            SPANS.labels("dropped").inc()
        if not closed:
            super().on_end(span)

    def shutdown(self) -> None:
        """Send what waits, for LAST_SECONDS at most, whatever the collector does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # The public method waits for half a minute, which is longer than a pod has got.
        self._batch_processor.shutdown(timeout_millis=LAST_SECONDS * 1000)
        if self._waiting:
            SPANS.labels("dropped").inc(self._waiting)
            log.warning("spans lost at the end", count=self._waiting)

    def took(self, count: int) -> None:
        """A batch has left the queue."""
        with self._lock:
            self._waiting -= count


def _trace_of(span: Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


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
