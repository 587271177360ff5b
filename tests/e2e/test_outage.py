"""MariaDB is killed in the middle of a confirmation: trace, log, metrics and alerts tell the same story."""

from collections import Counter
from collections.abc import Iterable

import pytest
import pytest_asyncio

from orchestrator.story.spans import Span
from tests.e2e.outage import CALLER, CORRELATION_ID, TRACE_ID, Told, resumed, told_of_an_outage
from tests.orchestrator.shop import not_ended

# One worker runs them all: there is one outage.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("outage")]

CONFIRM = "/admin/orders/{order_id}/confirm"
TREE_WIDTH = 79
GONE, NOBODY = "2013", "2003"
"""What MariaDB's client says of a server that goes away, and of one that is not there."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return await told_of_an_outage(tmp_path_factory.mktemp("outage"))


def counted(told: Told, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """A counter as Prometheus has it, by these labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for series in told.samples[name]:
        found[tuple(series["metric"].get(label, "") for label in labels)] += int(series["value"][1])
    return found


def spans_of(told: Told, trace_id: str) -> list[Span]:
    found = {span.span_id: span for span in told.spans if span.trace_id == trace_id}
    return sorted(found.values(), key=lambda span: span.start)


def by(spans: Iterable[Span], *attributes: str) -> Counter[tuple[str, ...]]:
    """The number of spans by their service and these attributes."""
    return Counter(
        (span.service, *(str(span.attributes.get(name, "")) for name in attributes)) for span in spans
    )


async def test_the_client_is_told_what_to_quote_and_the_order_is_confirmed_all_the_same(told: Told) -> None:
    problem = not_ended(told.reply, "saga.unfinished", step="confirm_order")

    assert (problem["correlation_id"], problem["trace_id"]) == (CORRELATION_ID, TRACE_ID)
    assert told.saga["status"] == "SUCCEEDED"
    assert told.saga["correlation_id"] == CORRELATION_ID
    confirmed = told.saga["steps"][-1]
    assert (confirmed["step"], confirmed["outcome"]) == ("confirm_order", "done")
    assert confirmed["attempts"] > 1


async def test_the_trace_shows_the_statement_that_died_and_leads_to_the_one_that_went_on(told: Told) -> None:
    trace = spans_of(told, TRACE_ID)

    failed = [span for span in trace if span.is_statement and span.failed]
    assert (failed[0].service, failed[0].name) == ("orders", "SELECT products")
    assert failed[0].attributes["db.response.status_code"] == GONE
    assert {(span.name, span.attributes["db.response.status_code"]) for span in failed[1:]} == {
        ("CONNECT", NOBODY)
    }
    refusals = [span for span in trace if span.kind == "SERVER" and span.failed and span.service == "orders"]
    assert {span.attributes["error.type"] for span in refusals} == {"db.unavailable"}
    (step,) = [span for span in trace if span.name == "saga confirm_order"]
    assert (step.failed, step.attributes["error.type"]) == (True, "peer.unavailable")
    assert [span.parent_id for span in trace if span.service == "orchestrator" and span.kind == "SERVER"] == [
        CALLER
    ]
    (continued,) = resumed(told.spans)
    assert continued.trace_id != TRACE_ID
    last = [span for span in spans_of(told, continued.trace_id) if span.name == f"POST {CONFIRM}"][-1]
    assert (last.service, last.failed) == ("orders", False)
    assert "COMMIT" in [span.name for span in told.spans if span.parent_id == last.span_id]
    ids = {span.attributes["correlation_id"] for span in [*trace, *spans_of(told, continued.trace_id)]}
    assert ids == {CORRELATION_ID}


async def test_the_log_says_the_same_of_the_same_request_under_the_same_ids(told: Told) -> None:
    of_it = [line for line in told.lines if line.get("correlation_id") == CORRELATION_ID]

    refusals = [line for line in of_it if line.get("http.route") == CONFIRM and "error.code" in line]
    assert {line["trace_id"] for line in refusals} >= {TRACE_ID}
    assert {(line["error.code"], line["error.type"]) for line in refusals} == {
        ("db.unavailable", "OperationalError")
    }
    numbers = [line["db.response.status_code"] for line in refusals]
    assert (numbers[0], set(numbers[1:])) == (GONE, {NOBODY})
    # Each of these lines is one SERVER span, and stands in the trace that the line names.
    spans = {span.span_id: span for span in told.spans}
    for line in refusals:
        span = spans[line["span_id"]]
        assert (span.trace_id, span.service) == (line["trace_id"], "orders")
        assert span.attributes["error.type"] == line["error.code"]
        below = [each for each in told.spans if each.parent_id == span.span_id and each.failed]
        assert [each.attributes["db.response.status_code"] for each in below][-1:] == [
            line["db.response.status_code"]
        ]
    (continued,) = resumed(told.spans)
    done = [line for line in of_it if line["event"] == "saga step" and line["outcome"] == "done"]
    assert (done[-1]["saga.step"], done[-1]["trace_id"]) == ("confirm_order", continued.trace_id)


async def test_metrics_log_and_spans_count_the_same_requests(told: Told) -> None:
    labels = ("job", "http_request_method", "http_route", "http_response_status_code", "error_type")
    in_metrics = counted(told, "http_server_request_duration_seconds_count", *labels)
    fields = ("service.name", "http.request.method", "http.route", "http.response.status_code", "error.code")
    in_log = Counter(
        tuple(str(line.get(field, "")) for field in fields)
        for line in told.lines
        if line["event"] == "request"
    )
    in_spans = by(
        [span for span in told.spans if span.kind == "SERVER"],
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "error.type",
    )

    assert in_metrics == in_log == in_spans
    assert in_log["orders", "POST", CONFIRM, "503", "db.unavailable"] > 1


async def test_metrics_log_and_spans_count_the_same_steps_and_attempts(told: Told) -> None:
    in_metrics = counted(told, "b2b_saga_step_duration_seconds_count", "step", "outcome")
    in_log = Counter(
        (line["saga.step"], line["outcome"]) for line in told.lines if line["event"] == "saga step"
    )
    steps = [span for span in told.spans if "saga.outcome" in span.attributes]
    in_spans = Counter((span.attributes["saga.step"], span.attributes["saga.outcome"]) for span in steps)
    codes = Counter(span.attributes.get("error.type") for span in steps)
    logged_codes = Counter(line["error.code"] for line in told.lines if line["event"] == "saga step")
    attempts = counted(told, "http_client_request_duration_seconds_count", "job", "error_type")
    failed = [span for span in told.spans if span.is_call and span.service == "orchestrator" and span.failed]

    assert in_metrics == in_log == in_spans
    assert in_log["confirm_order", "unavailable"] > 0
    assert codes == logged_codes
    assert attempts["orchestrator", "peer.unavailable"] == len(failed)
    ended = [line for line in told.lines if line["event"] == "saga step" and line["outcome"] == "done"]
    confirmed = {line["saga_id"] for line in ended if line["saga.step"] == "confirm_order"}
    assert counted(told, "b2b_sagas_ended_total", "state") == {("SUCCEEDED",): len(confirmed)}


async def test_the_statement_that_died_is_one_in_the_metrics_too(told: Told) -> None:
    labels = ("job", "db_operation_name", "db_collection_name", "error_type")
    in_metrics = counted(told, "db_client_operation_duration_seconds_count", *labels)
    in_spans = by(
        [span for span in told.spans if span.is_statement and span.failed and span.service == "orders"],
        "db.operation.name",
        "db.collection.name",
        "error.type",
    )

    died = ("orders", "SELECT", "products", "OperationalError")
    assert (in_metrics[died], in_spans[died]) == (1, 1)
    # Probes and background work try to connect, too, and are not recorded.
    connects = [key for key in in_metrics if key[1] == "CONNECT" and key[3]]
    assert connects == [("orders", "CONNECT", "none", "OperationalError")]
    assert in_metrics[connects[0]] >= in_spans["orders", "CONNECT", "", "OperationalError"] > 0


async def test_alerts_name_the_service_and_the_promise_and_end_with_the_outage(told: Told) -> None:
    on = {(alert["alertname"], alert.get("job"), alert.get("slo")) for alert in told.alerts}
    after = {alert["alertname"] for alert in told.alerts_after}

    assert ("ServiceNotReady", "orders", None) in on
    assert ("ErrorBudgetBurnsFast", "orchestrator", "main-job-availability") in on
    assert {job for name, job, _ in on if name == "ServiceNotReady"} == {"orders"}
    assert "ServiceNotReady" not in after
    assert told.waiting > 0
    assert not [series for series in told.samples["b2b_sagas"] if series["metric"]["state"] == "RUNNING"]
    # From the point in the histogram that burns the budget to the trace.
    assert TRACE_ID in told.exemplars


async def test_the_log_says_why_the_service_was_not_ready_and_when_it_was_again(told: Told) -> None:
    of_orders = [line for line in told.lines if line["service.name"] == "orders"]
    said = [line for line in of_orders if line["event"] in ("not ready", "ready")]

    assert [(line["event"], line.get("reason")) for line in said[-2:]] == [
        ("not ready", "db.unavailable"),
        ("ready", None),
    ]


async def test_the_story_has_all_of_it_on_one_page(told: Told) -> None:
    # The tree's own column, which wraps its lines, without the lines of the tree.
    cells = (line[:TREE_WIDTH].translate(dict.fromkeys(map(ord, "│├└─"))) for line in told.story.splitlines())
    words = " ".join(" ".join(cells).split())

    assert "status SUCCEEDED" in words
    assert f"correlation id {CORRELATION_ID}" in words
    assert f"Trace {TRACE_ID}" in words
    assert f"products OperationalError {GONE}" in words
    assert f"CONNECT OperationalError {NOBODY}" in words
    assert "saga confirm_order unavailable peer.unavailable" in words
    (continued,) = resumed(told.spans)
    assert f"continued in trace {continued.trace_id}" in words
    assert "GET /orchestrator/sagas/" not in words
