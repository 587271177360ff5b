from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from orchestrator.story.spans import Span
from orchestrator.story.tree import rows, tree


def span(span_id: str, parent_id: str, name: str, **changes: Any) -> Span:
    start = int(span_id) * 1_000_000
    values = {"service": "orders", "kind": "SERVER", "failed": False, "attributes": {}, **changes}
    return Span("trace", span_id, parent_id, name=name, start=start, end=start + 1_000_000, **values)


def statement(span_id: str, parent_id: str, operation: str, table: str = "none") -> Span:
    attributes = {"db.operation.name": operation, "db.collection.name": table}
    return span(span_id, parent_id, f"{operation} {table}", kind="CLIENT", attributes=attributes)


TRACE = [
    span("1", "", "POST /orders", attributes={"http.response.status_code": 201}),
    statement("2", "1", "BEGIN"),
    statement("3", "1", "SELECT", "products"),
    statement("4", "1", "SELECT", "products"),
    statement("5", "1", "INSERT", "orders"),
    statement("6", "1", "INSERT", "order_items"),
    statement("7", "1", "COMMIT"),
    span(
        "8",
        "1",
        "GET",
        kind="CLIENT",
        failed=True,
        attributes={
            "url.full": "http://127.0.0.1:1/customers/1?token=x",
            "http.response.status_code": 503,
            "error.type": "503",
            "http.request.resend_count": 1,
        },
    ),
    span("9", "8", "GET /customers/{id}", service="customers"),
]


def test_statements_in_a_row_are_one_line_and_calls_name_their_path() -> None:
    drawn = [f"{row.guide}{row.label}" for row in rows(TRACE)]

    assert drawn == [
        "POST /orders 201",
        "├─ SELECT products x2 · INSERT orders, order_items · COMMIT",
        "└─ call GET /customers/1 503 repetition 1",
        "   └─ GET /customers/{id}",
    ]


def test_a_statement_that_failed_says_how() -> None:
    error = {"error.type": "OperationalError", "db.response.status_code": "2013"}
    died = replace(
        statement("3", "1", "SELECT", "products"),
        failed=True,
        attributes={"db.operation.name": "SELECT", "db.collection.name": "products", **error},
    )
    refused = replace(
        statement("4", "1", "CONNECT"), failed=True, attributes={"db.operation.name": "CONNECT", **error}
    )

    drawn = [f"{row.guide}{row.label}" for row in rows([TRACE[0], TRACE[2], died, refused])]

    assert drawn == [
        "POST /orders 201",
        "└─ SELECT products, products OperationalError 2013 · CONNECT OperationalError 2013",
    ]


def test_a_span_whose_parent_is_unknown_is_a_root() -> None:
    assert [row.guide for row in rows(TRACE[-1:])] == [""]


def test_links_lead_to_the_trace_before_and_to_the_one_after() -> None:
    first = span("1", "", "saga confirm_order")
    resumed = replace(span("2", "", "saga resumed"), trace_id="later", links=(("trace", "1"),))

    before = [row.label for row in rows([first], [resumed])]
    after = [row.label for row in rows([resumed], [first])]

    assert before == ["saga confirm_order · continued in trace later"]
    assert after == ["saga resumed · linked to trace trace"]


def test_a_long_line_is_wrapped_inside_the_tree() -> None:
    written = StringIO()

    Console(file=written, width=50).print(tree(TRACE, 50))

    lines = [line[:29].rstrip() for line in written.getvalue().splitlines()]
    assert lines[1:] == [
        "POST /orders 201",
        "├─ SELECT products x2 ·",
        "│  INSERT orders, order_items",
        "│  · COMMIT",
        "└─ call GET /customers/1 503",
        "   repetition 1",
        "   └─ GET /customers/{id}",
    ]


def test_bars_show_when_in_the_whole_a_span_was() -> None:
    written = StringIO()

    Console(file=written, width=100).print(tree(TRACE, 100))

    bars = [line.rstrip()[-20:] for line in written.getvalue().splitlines()[1:]]
    assert bars[0] == "━━" + "·" * 18
    assert bars[-1] == "·" * 17 + "━━━"
