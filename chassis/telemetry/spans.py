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
from sqlalchemy import Dialect, Engine

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
    """Give every statement of this engine, and each new connection, a span and a place in the histogram."""
    dialect = engine.dialect
    system = _system(dialect)
    for way in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, way, _observed(system, getattr(dialect, way)))
    connect = dialect.connect

    def connected(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the driver's
        with _operation("CONNECT", system):
            return connect(*arguments, **options)

    dialect.connect = connected  # type: ignore[method-assign]  # as the statements


def _observed(system: str, execute: Callable[..., None]) -> Callable[..., None]:
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
        started, failure = perf_counter(), None
        try:
            execute(cursor, statement, *rest)
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = perf_counter() - started
            DB_DURATION.labels(operation, table, _type_of(failure)).observe(seconds)
            if locks:
                LOCK_WAIT.labels(table).observe(seconds)
            _close(span, failure)

    return observed


@contextmanager
def commit(bind: Any) -> Iterator[None]:  # noqa: ANN401 - an Engine or a Connection
    """The span and duration of the COMMIT inside the block."""
    with _operation("COMMIT", _system(bind.dialect)):
        yield


@contextmanager
def _operation(name: str, system: str) -> Iterator[None]:
    """The span and duration of what is sent to the database as no statement."""
    started, failure = perf_counter(), None
    span: Span = trace.INVALID_SPAN
    if trace.get_current_span().is_recording():
        attributes = {"db.system.name": system, "db.operation.name": name}
        span = traces.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    try:
        yield
    except BaseException as error:  # also one that is given up: it was cancelled
        failure = getattr(error, "orig", error)
        raise
    finally:
        DB_DURATION.labels(name, "none", _type_of(failure)).observe(perf_counter() - started)
        _close(span, failure)


def failure_of(error: BaseException) -> dict[str, str]:
    """How a driver's error is named in spans and log lines: its type and, if it has one, its number.

    Its words may quote what was to be written.
    """
    number = getattr(error, "sqlite_errorcode", error.args[0] if error.args else None)
    named = {"error.type": _type_of(error)}
    return {**named, "db.response.status_code": str(number)} if isinstance(number, int) else named


def _type_of(error: BaseException | None) -> str:
    return "" if error is None else type(error).__name__


def _close(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attributes(failure_of(error))
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _system(dialect: Dialect) -> str:
    return "sqlite" if dialect.name == "sqlite" else "mysql"
