"""Traces, metrics and logs of a service, each set up once by the process.

traces   the tracer provider, from the standard OTEL_* variables
metrics  every metric there is: name, labels, unit and help in one place
logs     one JSON line an event, with the ids that join it to its trace
"""
