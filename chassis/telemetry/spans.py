"""Spans and durations of database work, taken where SQLAlchemy hands a statement to the driver.

The SQLAlchemy instrumentation of OpenTelemetry does not support SQLAlchemy 2.1, and knows neither
the COMMIT nor the names of the tables. SQLAlchemy's events for statements are not used: an engine that
has listeners makes a dispatcher for each connection, which costs more than what is observed.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from sqlalchemy import Engine

from chassis.telemetry import traces
from chassis.telemetry.metrics import DB_DURATION, LOCK_WAIT

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+`?(\w+)`?", re.IGNORECASE)
_LOCKS = re.compile(r"\bFOR UPDATE\b|^BEGIN IMMEDIATE", re.IGNORECASE)


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
    dialect = engine.dialect
    for way in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, way, _observed(dialect.name, getattr(dialect, way)))


def _observed(dialect: str, execute: Callable[..., None]) -> Callable[..., None]:
    system = "sqlite" if dialect == "sqlite" else "mysql"

    def observed(cursor: object, statement: str, *rest: object) -> None:
        operation, table, locks = _summary(statement)
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
        started, error_type = perf_counter(), ""
        try:
            execute(cursor, statement, *rest)
        except BaseException as error:
            error_type = type(error).__name__
            span.set_attribute("error.type", error_type)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            seconds = perf_counter() - started
            DB_DURATION.labels(operation, table, error_type).observe(seconds)
            if locks:
                LOCK_WAIT.labels(table).observe(seconds)
            span.end()

    return observed


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
