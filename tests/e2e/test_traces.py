"""What three real processes export, decoded by a receiver of OTLP: one order, one story."""

# ruff: noqa: F401, F811 - fixtures are imported, and found by their names

from typing import Any

import pytest
from aiohttp import web

from orchestrator.story.spans import Span
from tests.databases import execute
from tests.e2e.system import System, backend, system, urls
from tests.orchestrator.shop import not_ended, until
from tests.orchestrator.wire import PassOn, answers

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "b7ad6b7169203331"
FORMER_NAMES = ("http.method", "http.url", "http.status_code", "net.peer.name", "db.statement", "db.system")
"""Names of the semantic conventions from before they were stable."""


class Tree:
    """The spans of a trace by their parents."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans

    def below(self, span_id: str) -> list[Span]:
        """The children of a span in the order in which they began."""
        return [span for span in self.spans if span.parent_id == span_id]

    def statements_of(self, span: Span) -> list[str]:
        """What the span sent to its database."""
        return [child.name for child in self.below(span.span_id) if child.is_statement]

    def calls_of(self, span: Span) -> list[Span]:
        """The attempts to call a peer that the span made."""
        return [child for child in self.below(span.span_id) if child.is_call]

    def called_by(self, span: Span) -> Span:
        """The span at the other end of the last HTTP call that this one made."""
        (server,) = self.below(self.calls_of(span)[-1].span_id)
        return server


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-{CALLER}-01"


async def found(system: System, *, name: str, linked_to: str = "", **attributes: Any) -> Span:
    """The span with this name, these attributes and, if told, a link to this trace, once it came."""

    async def look() -> Span | None:
        for span in system.traces.spans:
            linked = not linked_to or linked_to in [trace_id for trace_id, _ in span.links]
            if span.name == name and linked and attributes.items() <= span.attributes.items():
                return span
        return None

    span: Span = await until(look)
    return span


async def test_one_order_is_one_trace_from_the_request_to_the_commits(system: System) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    body = await system.catalog.basket()
    heard: list[str | None] = []

    async def listens(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
        heard.append(request.headers.get("baggage"))
        return await pass_on()

    system.to_orders.breaks("/create-order", listens)
    system.to_orders.breaks("/confirm", answers(503))
    reply = await system.orchestrator.job(
        body, "traced", traceparent=traceparent(trace_id), X_Correlation_Id="req-456"
    )

    async def exported() -> bool:
        spans = system.traces.of(trace_id)
        unknown = {span.parent_id for span in spans} - {span.span_id for span in spans}
        return unknown == {CALLER} and sum(span.kind == "SERVER" for span in spans) == 5

    assert reply.status == 201
    await until(exported)
    tree = Tree(system.traces.of(trace_id))
    (job,) = tree.below(CALLER)
    assert (job.service, job.kind, job.name) == (
        "orchestrator",
        "SERVER",
        "POST /orchestrator/create-and-confirm-order",
    )
    steps = [span for span in tree.below(job.span_id) if span.kind == "INTERNAL"]
    assert [(step.name, step.attributes["saga.step"]) for step in steps] == [
        ("saga validate_customer", "validate_customer"),
        ("saga create_order", "create_order"),
        ("saga confirm_order", "confirm_order"),
    ]
    validated, created, confirmed = (tree.called_by(step) for step in steps)
    assert (validated.service, validated.kind) == ("customers", "SERVER")
    assert (created.service, created.name) == ("orders", "POST /admin/orders/create-order")
    assert (confirmed.service, confirmed.name) == ("orders", "POST /admin/orders/{order_id}/confirm")
    assert tree.called_by(created).service == "customers"
    assert "SELECT customers" in tree.statements_of(validated)
    for writer in (job, created, confirmed):
        assert "COMMIT" in tree.statements_of(writer)

    attempts = tree.calls_of(steps[2])
    resends = [attempt.attributes.get("http.request.resend_count") for attempt in attempts]
    assert resends == [None, 1]
    assert [attempt.attributes["http.response.status_code"] for attempt in attempts] == [503, 200]

    order_id, saga_id = reply.json["data"]["order"]["id"], reply.json["saga_id"]
    assert {span.attributes.get("correlation_id") for span in tree.spans} == {"req-456"}
    assert {span.attributes["saga_id"] for span in (job, *steps)} == {saga_id}
    assert {span.attributes["order_id"] for span in (*steps[1:], created, confirmed)} == {order_id}
    assert heard == ["correlation_id=req-456"]
    assert [name for span in tree.spans for name in FORMER_NAMES if name in span.attributes] == []


async def test_a_saga_that_a_sweeper_goes_on_with_is_linked_to_its_first_trace(system: System) -> None:
    trace_id = "1af7651916cd43dd8448eb211c80319c"
    body = await system.catalog.basket()
    system.to_orders.breaks("/confirm", *[answers(503)] * 8)

    reply = await system.orchestrator.job(
        body, "swept", traceparent=traceparent(trace_id), X_Correlation_Id="req-swept"
    )
    saga_id = not_ended(reply, "saga.unfinished", step="confirm_order")["saga_id"]
    system.to_orders.breaks("/confirm")
    assert (await system.orchestrator.ended(saga_id))["status"] == "SUCCEEDED"

    resumed = await found(system, name="saga resumed", linked_to=trace_id, saga_id=saga_id)
    assert (resumed.parent_id, resumed.trace_id != trace_id) == ("", True)
    assert resumed.attributes["correlation_id"] == "req-swept"
    confirmed = await found(system, name="POST /admin/orders/{order_id}/confirm", correlation_id="req-swept")
    assert confirmed.trace_id == resumed.trace_id


async def test_a_saga_that_a_twin_goes_on_with_is_linked_from_the_twins_trace(system: System) -> None:
    first, second = "2af7651916cd43dd8448eb211c80319c", "3af7651916cd43dd8448eb211c80319c"
    body = await system.catalog.basket()
    system.to_orders.breaks("/confirm", *[answers(503)] * 8)
    reply = await system.orchestrator.job(body, "twin", traceparent=traceparent(first))
    not_ended(reply, "saga.unfinished", step="confirm_order")
    system.to_orders.breaks("/confirm")

    again = await system.orchestrator.job(body, "twin", traceparent=traceparent(second))

    assert again.status == 201
    resumed = await found(system, name="saga resumed", linked_to=first)
    assert resumed.trace_id == second
    assert resumed.parent_id != ""


async def test_orders_that_expire_are_a_trace_and_rounds_that_find_nothing_are_none(
    system: System,
    urls: dict[str, str],
) -> None:
    body = await system.catalog.basket()
    made = await system.catalog.orders.post("/admin/orders/create-order", body)
    order_id = made.json["data"]["id"]

    execute(urls["orders"], f"UPDATE orders SET expires_at = created_at WHERE id = {order_id}")  # noqa: S608 - a number

    async def canceled() -> Any:
        order = (await system.catalog.orders.get(f"/admin/orders/find-one/{order_id}")).json["data"]
        return order if order["status"] == "CANCELED" else None

    order = await until(canceled)
    expired = await found(system, name="expire orders")
    assert expired.trace_id == order["history"][-1]["correlation_id"]
    assert expired.attributes["orders.expired"] == 1
    assert "COMMIT" in Tree(system.traces.of(expired.trace_id)).statements_of(expired)
    begun = {span.name for span in system.traces.spans if not span.parent_id}
    # Other tests of this module may have let sagas be resumed.
    assert {name for name in begun if not name.startswith(("POST ", "GET "))} - {"saga resumed"} == {
        "expire orders"
    }
