"""The caller's correlation id and the trace it belongs to.

The id travels as W3C baggage in the OpenTelemetry context, so that it reaches log lines, spans and
calls to peers without being handed from function to function.
"""

import re

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context

HEADER = "X-Correlation-Id"
PATTERN = r"[A-Za-z0-9._:-]{1,128}"
NO_TRACE = "0" * 32
"""What stands for a trace id where there is no trace."""
_BAGGAGE = "correlation_id"
_VALID = re.compile(PATTERN)


def is_valid(value: str) -> bool:
    """Whether a caller may use `value` as a correlation id."""
    return _VALID.fullmatch(value) is not None


def trace_id(context: Context | None = None) -> str:
    """The current trace id, 32 hexadecimal digits."""
    return trace.format_trace_id(trace.get_current_span(context).get_span_context().trace_id)


def current(context: Context | None = None) -> str:
    """The correlation id of the current context; without one, the trace id."""
    value = baggage.get_baggage(_BAGGAGE, context)
    return value if isinstance(value, str) and is_valid(value) else trace_id(context)


def adopt(value: str) -> None:
    """Let the rest of the current task carry `value`."""
    otel_context.attach(carried(value))


def carried(value: str, context: Context | None = None) -> Context:
    """A context that carries `value` as its correlation id."""
    return baggage.set_baggage(_BAGGAGE, value, context)
