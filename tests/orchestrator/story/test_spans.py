"""OTLP in JSON says what OTLP in protobuf says."""

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from orchestrator.story.spans import NotOtlp, Span, of_json, of_resources

TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
DOCUMENT: dict[str, Any] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "orders"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "b2b-orders"},
                    "spans": [
                        {
                            "traceId": TRACE,
                            "spanId": "b7ad6b7169203331",
                            "parentSpanId": "00f067aa0ba902b7",
                            "name": "GET /",
                            "kind": 2,
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                            "attributes": [
                                {"key": "order_id", "value": {"intValue": "7"}},
                                {
                                    "key": "skus",
                                    "value": {"arrayValue": {"values": [{"stringValue": "A"}]}},
                                },
                            ],
                            "links": [{"traceId": OTHER, "spanId": "c7ad6b7169203331"}],
                            "status": {"code": 2},
                            "whatComesNext": 1,
                        }
                    ],
                }
            ],
        }
    ]
}
SPAN = Span(
    trace_id=TRACE,
    span_id="b7ad6b7169203331",
    parent_id="00f067aa0ba902b7",
    service="orders",
    name="GET /",
    kind="SERVER",
    start=1544712660000000000,
    end=1544712661000000000,
    failed=True,
    attributes={"order_id": 7, "skus": ["A"]},
    links=((OTHER, "c7ad6b7169203331"),),
)


def test_a_document_a_line_each_and_what_jaeger_answers_are_read() -> None:
    one = json.dumps(DOCUMENT)

    assert of_json(one) == [SPAN]
    assert of_json(f"{one}\n\n{one}\n") == [SPAN, SPAN]
    assert of_json(json.dumps({"result": DOCUMENT})) == [SPAN]


def test_protobuf_says_the_same() -> None:
    message = trace_pb2.TracesData()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "orders"
    span = resource.scope_spans.add().spans.add(name="GET /", kind=2, trace_id=bytes.fromhex(TRACE))
    span.links.add(trace_id=bytes.fromhex(OTHER))

    (decoded,) = of_resources(message.resource_spans)

    assert (decoded.trace_id, decoded.service, decoded.kind) == (TRACE, "orders", "SERVER")
    assert decoded.links == ((OTHER, ""),)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "7",
        '{"resourceSpans": 7}',
        '{"resourceSpans": [7]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "no hexadecimal digits"}]}]}]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_otlp_is_refused(text: str) -> None:
    with pytest.raises(NotOtlp):
        of_json(text)
