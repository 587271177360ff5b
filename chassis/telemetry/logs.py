"""One line an event: JSON for machines, colours on a terminal, the same fields in both.

Library loggers go through the same renderer. Authorization headers, tokens, raw idempotency keys,
e-mail addresses and phone numbers are never given to a logger.
"""

import logging
import sys
from typing import Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from chassis import correlation

_RENAMED = {
    "service_name": "service.name",
    "service_version": "service.version",
    "http_method": "http.request.method",
    "http_route": "http.route",
    "http_status": "http.response.status_code",
    "saga_step": "saga.step",
    "error_type": "error.type",
    "error_code": "error.code",
}


def set_up(service: str, version: str, level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send every logger of this process to standard error."""

    def add_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service_name"] = service
        event["service_version"] = version
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = trace.format_trace_id(span.trace_id)
            event["span_id"] = trace.format_span_id(span.span_id)
            event["correlation_id"] = correlation.current()
        return event

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_context,
        _rename,
    ]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # SQLAlchemy's pool logs by the name of our class of it.
    pools = "chassis.telemetry.pools"
    for chatty in ("asyncio", "aiosqlite", "alembic", "sqlalchemy", pools, "urllib3", "opentelemetry"):
        logging.getLogger(chatty).setLevel("WARNING")
    for quoting in ("opentelemetry.baggage", "opentelemetry.trace"):
        logging.getLogger(quoting).setLevel("ERROR")  # they quote headers that they cannot read
    logging.getLogger("asyncmy").setLevel("ERROR")  # it logs the server's notes on DDL as warnings
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _rename(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Python's keyword arguments have no dots; the names on the line have."""
    for name, renamed in _RENAMED.items():
        if name in event:
            event[renamed] = event.pop(name)
    return event
