"""Spans and durations of database work, from SQLAlchemy's own engine events.

The SQLAlchemy instrumentation of OpenTelemetry does not support SQLAlchemy 2.1, and knows neither
the COMMIT nor the names of the tables.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from chassis.telemetry import traces
from chassis.telemetry.metrics import DB_DURATION, LOCK_WAIT

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+`?(\w+)`?", re.IGNORECASE)
_LOCKS = re.compile(r"\bFOR UPDATE\b|^BEGIN IMMEDIATE", re.IGNORECASE)
_OPEN = "b2b_statement"


class Summary(NamedTuple):
    """A statement in short, for instance `("SELECT", "orders", True)`."""

    operation: str
    table: str
    locks: bool


@lru_cache(maxsize=512)
def _summary(statement: str) -> Summary:
    table = _TABLE.search(statement)
    operation = statement.split(None, 1)[0].upper()
    return Summary(operation, table.group(1) if table else "none", _LOCKS.search(statement) is not None)


def observe_statements(engine: Engine) -> None:
    """Give every statement of this engine a span and a place in the histogram."""
    system = "sqlite" if engine.dialect.name == "sqlite" else "mysql"

    @event.listens_for(engine, "before_cursor_execute")
    def _before(
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _many: object,
    ) -> None:
        summary = _summary(statement)
        operation, table, _ = summary
        span: Span = trace.INVALID_SPAN
        if trace.get_current_span().is_recording():  # a probe's statement alone is no trace
            attributes = {
                "db.system.name": system,
                "db.operation.name": operation,
                "db.collection.name": table,
                "db.query.text": statement,
            }
            span = traces.tracer.start_span(
                f"{operation} {table}", kind=SpanKind.CLIENT, attributes=attributes
            )
        connection.info[_OPEN] = (span, summary, perf_counter())

    @event.listens_for(engine, "after_cursor_execute")
    def _after(
        connection: Connection,
        _cursor: object,
        _statement: str,
        _parameters: object,
        _context: object,
        _many: object,
    ) -> None:
        _end(connection.info)

    @event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> None:
        if context.connection is not None:
            _end(context.connection.info, context.original_exception)


def _end(info: dict[Any, Any], error: BaseException | None = None) -> None:
    opened: tuple[Span, Summary, float] | None = info.pop(_OPEN, None)
    if opened is None:
        return
    span, (operation, table, locks), started = opened
    seconds = perf_counter() - started
    error_type = "" if error is None else type(error).__name__
    DB_DURATION.labels(operation, table, error_type).observe(seconds)
    if locks:
        LOCK_WAIT.labels(table).observe(seconds)
    if error is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


@contextmanager
def commit(bind: Any) -> Iterator[None]:  # noqa: ANN401 - an Engine or a Connection
    """The span and duration of the COMMIT inside the block."""
    started, error_type = perf_counter(), ""
    system = "sqlite" if bind.dialect.name == "sqlite" else "mysql"
    attributes = {"db.system.name": system, "db.operation.name": "COMMIT"}
    try:
        with traces.tracer.start_as_current_span("COMMIT", kind=SpanKind.CLIENT, attributes=attributes):
            yield
    except Exception as error:
        error_type = type(getattr(error, "orig", error)).__name__
        raise
    finally:
        DB_DURATION.labels("COMMIT", "none", error_type).observe(perf_counter() - started)
