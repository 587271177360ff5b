"""Tracing: W3C trace context and baggage in and out, spans to OTLP when an endpoint is set.

Without OTEL_EXPORTER_OTLP_ENDPOINT nothing is sampled and nothing exported, but every request still
has a trace id for its logs and its answer.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.telemetry.export import Processor
from chassis.telemetry.metrics import TARGET

tracer = trace.get_tracer("b2b-orders")
"""The tracer of the chassis and the services; it finds the provider that `set_up` installs."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORT_TIMEOUT_SECONDS = 3


def resource_of(service: str, version: str) -> Resource:
    """What traces, metrics and log lines say of this process; the operator's word is the last one."""
    instance = f"{socket.gethostname()}-{os.getpid()}"  # in a container every process has the number 1
    ours = {SERVICE_NAME: service, SERVICE_VERSION: version, SERVICE_INSTANCE_ID: instance}
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def named(service: str, version: str) -> tuple[str, str]:
    """The name and the version of this service in all of its telemetry."""
    attributes = resource_of(service, version).attributes
    return str(attributes[SERVICE_NAME]), str(attributes[SERVICE_VERSION])


def set_up(service: str, version: str) -> None:
    """Install the tracer provider of this process."""
    resource = resource_of(service, version)
    if any(os.environ.get(name) for name in _ENDPOINTS) and os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(Processor(OTLPSpanExporter(timeout=_EXPORT_TIMEOUT_SECONDS)))
    else:
        provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)
    TARGET.info({name.replace(".", "_"): str(value) for name, value in resource.attributes.items()})


async def shut_down() -> None:
    """Export what is left. In a thread: with the collector down it blocks for seconds."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        await asyncio.to_thread(provider.shutdown)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Give what is inside a trace id for its log lines, but no trace: nothing of it is exported."""
    ids = RandomIdGenerator()
    span = NonRecordingSpan(SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False))
    token = otel_context.attach(trace.set_span_in_context(span, Context()))
    try:
        yield
    finally:
        otel_context.detach(token)


@contextmanager
def recorded(name: str) -> Iterator[trace.Span]:
    """A trace of its own, also inside `unrecorded`."""
    token = otel_context.attach(Context())
    try:
        with tracer.start_as_current_span(name) as span:
            yield span
    finally:
        otel_context.detach(token)


def traceparent() -> str:
    """The current span as a W3C traceparent, to be kept and linked to later."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def links_to(parent: str) -> list[Link]:
    """A link to a span that was kept as a traceparent."""
    context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    found = trace.get_current_span(context).get_span_context()
    return [Link(found)] if found.is_valid else []
