"""Spans as they come over OTLP: in protobuf from an exporter, in JSON from a file or from Jaeger."""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]  # the package ships no types
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_IDS = ("traceId", "spanId", "parentSpanId")


class NotOtlp(ValueError):  # noqa: N818 - says what it is
    """What was read is no OTLP."""


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span; its times are nanoseconds since 1970, its links the ids of traces and spans."""

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
    links: tuple[tuple[str, str], ...] = field(default=())

    @property
    def is_statement(self) -> bool:
        """Whether it is one statement sent to a database."""
        return "db.operation.name" in self.attributes

    @property
    def is_call(self) -> bool:
        """Whether it is a call to another service."""
        return self.kind == "CLIENT" and not self.is_statement


def of_resources(resources: Iterable[trace_pb2.ResourceSpans]) -> list[Span]:
    """The spans of an export request or of traces that are kept."""
    return [
        _span(str(_attributes(resource.resource.attributes).get("service.name", "")), span)
        for resource in resources
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def of_json(text: str) -> list[Span]:
    """The spans of OTLP JSON: one document, or one a line as a collector writes it.

    Raises:
        NotOtlp: it is something else.

    """
    try:
        documents = [json.loads(text)]
    except RecursionError:
        raise NotOtlp("it is nested too deeply") from None
    except ValueError:
        documents = list(_lines(text))
    return [span for document in documents for span in _of_document(document)]


def _lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise NotOtlp(f"line {number} is no JSON: {error}") from None


def _of_document(document: Any) -> list[Span]:  # noqa: ANN401 - JSON
    """The spans of one document; Jaeger wraps it into `result`."""
    if isinstance(document, dict) and isinstance(document.get("result"), dict):
        document = document["result"]
    if not isinstance(document, dict) or not isinstance(document.get("resourceSpans", []), list):
        raise NotOtlp("an object with resourceSpans is wanted")
    try:
        _binary_ids(document)
        traces = json_format.ParseDict(document, trace_pb2.TracesData(), ignore_unknown_fields=True)
    except (json_format.ParseError, binascii.Error, ValueError, RecursionError) as error:
        raise NotOtlp(str(error)) from None
    return of_resources(traces.resource_spans)


def _binary_ids(found: Any) -> None:  # noqa: ANN401 - JSON
    """Write the ids as JSON of protobuf has bytes; OTLP has them in hexadecimal digits."""
    if isinstance(found, list):
        for each in found:
            _binary_ids(each)
    elif isinstance(found, dict):
        for name, value in found.items():
            if name in _IDS and isinstance(value, str):
                found[name] = base64.b64encode(bytes.fromhex(value)).decode()
            else:
                _binary_ids(value)


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
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:  # noqa: ANN401 - whatever the attribute is
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)
