import json
import logging
from typing import Literal

import pytest
import structlog
from opentelemetry import context as otel_context

from chassis import correlation
from chassis.telemetry import logs, traces
from tests.observed import LogLines

log = structlog.get_logger("chassis.tests")


def test_a_line_has_the_names_that_dashboards_and_searches_use(log_lines: LogLines) -> None:
    log.warning("confirmed", http_route="/orders", error_code="x.y", saga_step="confirm_order", order_id=7)

    [line] = log_lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "confirmed",
        "level": "warning",
        "logger": "chassis.tests",
        "service.name": "tests",
        "service.version": "0.1.0",
        "http.route": "/orders",
        "error.code": "x.y",
        "saga.step": "confirm_order",
        "order_id": 7,
    }


def test_a_line_within_a_trace_has_its_ids(log_lines: LogLines) -> None:
    token = otel_context.attach(correlation.carried("req-456"))
    with traces.tracer.start_as_current_span("work") as span:
        log.info("inside")
    otel_context.detach(token)

    [line] = log_lines()
    context = span.get_span_context()
    assert line["trace_id"] == f"{context.trace_id:032x}"
    assert line["span_id"] == f"{context.span_id:016x}"
    assert line["correlation_id"] == "req-456"


def test_libraries_write_the_same_lines(log_lines: LogLines) -> None:
    library = logging.getLogger("some.library")

    try:
        int("twelve")
    except ValueError:
        library.exception("it failed %s", "twice", extra={"port": 3306})

    [line] = log_lines()
    assert line["event"] == "it failed twice"
    assert (line["level"], line["logger"], line["port"]) == ("error", "some.library", 3306)
    assert line["service.name"] == "tests"
    assert "ValueError: invalid literal for int() with base 10: 'twelve'" in line["exception"]


def test_what_is_below_the_level_is_not_written(log_lines: LogLines) -> None:
    log.debug("details")
    logging.getLogger("some.library").debug("details")
    logging.getLogger("aiosqlite").info("executing")

    assert log_lines() == []


def test_what_cannot_be_json_is_written_all_the_same(log_lines: LogLines) -> None:
    log.info("odd", value=object(), text="é🦄", raw=b"\xff")

    [line] = log_lines()
    assert line["text"] == "é🦄"
    assert "object object" in line["value"]


@pytest.mark.parametrize("form", ["json", "console", "auto"])
def test_people_get_another_form_than_machines(
    form: Literal["json", "console", "auto"], capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers = root.handlers[:]

    logs.set_up("tests", "0.1.0", "info", form)
    logging.getLogger("some.library").info("hello")
    root.handlers[:] = handlers

    written = capsys.readouterr().err
    assert "hello" in written
    if form == "console":
        with pytest.raises(json.JSONDecodeError):
            json.loads(written)
    else:  # what captures the output is no terminal
        assert json.loads(written)["event"] == "hello"
