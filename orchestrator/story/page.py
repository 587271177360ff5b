"""The story as people read it, and as programs do."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chassis.auth.principal import ANONYMOUS
from orchestrator.models import Saga
from orchestrator.schemas import SagaView
from orchestrator.story.spans import Span
from orchestrator.story.story import Order, Story
from orchestrator.story.traces import by_trace
from orchestrator.story.tree import tree


def show(console: Console, story: Story, spans: Sequence[Span]) -> None:
    """Print the story: sagas, orders, traces, and what is missing."""
    for saga in story.sagas:
        _section(console, f"Saga {saga.id}", _about_saga(saga), _steps(saga))
    for order in story.orders:
        title = f"Order {order.view['order_number']}"
        _section(console, title, _about_order(order), _history(order), _ledger(order))
    for trace in by_trace(spans):
        others = [span for span in spans if span.trace_id != trace[0].trace_id]
        _section(console, f"Trace {trace[0].trace_id}", tree(trace, console.width, others))
    if story.gaps:
        _section(console, "What is missing", *(Text(gap, style="yellow") for gap in story.gaps))


def as_json(story: Story, spans: Sequence[Span]) -> str:
    """The story as one JSON object."""
    return json.dumps(
        {
            "sagas": [
                SagaView.model_validate(saga).model_dump(mode="json") | {"trace_id": saga.trace_id}
                for saga in story.sagas
            ],
            "orders": [{**order.view, "movements": order.movements} for order in story.orders],
            "spans": [asdict(span) for span in spans],
            "gaps": story.gaps,
        },
        indent=2,
    )


def _section(console: Console, title: str, *parts: RenderableType) -> None:
    console.rule(Text(title, style="bold"), align="left")
    for part in parts:
        console.print(part)
    console.print()


def _about_saga(saga: Saga) -> Table:
    facts: dict[str, Any] = {
        "status": saga.status,
        "next step": saga.step,
        "attention": saga.attention,
        "refusal": (saga.refusal or {}).get("code"),
        "attempts": saga.attempts,
        "in the name of": None if saga.principal == ANONYMOUS else saga.principal,
        "correlation id": saga.correlation_id,
        "trace id": saga.trace_id,
        "created": _moment(saga.created_at),
        "finished": _moment(saga.finished_at),
        "tried again": _moment(saga.resume_at) if saga.is_paused else None,
    }
    return _facts(facts)


def _about_order(order: Order) -> Table:
    view = order.view
    facts = {
        "status": view["status"],
        "customer": view["customer_id"],
        "total": f"{view['total_cents'] / 100:,.2f} {view['currency']}",
        "purchase order": view["purchase_order_number"],
        "correlation id": view["correlation_id"],
        "items": ", ".join(f"{item['qty']} x {item['sku']}" for item in view["items"]),
    }
    return _facts(facts)


def _facts(facts: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in facts.items():
        if value is not None and value != "":
            table.add_row(name, Text(str(value)))
    return table


def _steps(saga: Saga) -> Table:
    def rows() -> Iterator[tuple[str, ...]]:
        for step in saga.steps:
            start, end = (datetime.fromisoformat(step[name]) for name in ("started_at", "finished_at"))
            took = f"{(end - start).total_seconds() * 1000:.1f} ms"
            yield (
                step["step"],
                step["outcome"],
                str(step["attempts"]),
                _moment(start),
                took,
                step["code"] or "",
            )

    return _table(("step", "outcome", "attempts", "started", "took", "code"), rows())


def _history(order: Order) -> Table:
    rows = (
        (
            _moment(event["at"]),
            f"{event['from_status'] or '—'} → {event['to_status']}",
            event["reason"] or "",
            event["correlation_id"],
            "" if event["principal"] == ANONYMOUS else event["principal"],
        )
        for event in order.view["history"]
    )
    return _table(("history", "change", "reason", "correlation id", "in the name of"), rows)


def _ledger(order: Order) -> Table:
    skus = {item["product_id"]: item["sku"] for item in order.view["items"]}
    rows = (
        (
            _moment(line["at"]),
            line["kind"],
            skus.get(line["product_id"], str(line["product_id"])),
            f"{line['stock_delta']:+}",
            f"{line['reserved_delta']:+}",
        )
        for line in order.movements
    )
    return _table(("ledger", "kind", "SKU", "stock", "reserved"), rows)


def _table(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _moment(at: datetime | str | None) -> str:
    """A time to the millisecond, in UTC."""
    if at is None:
        return ""
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"
