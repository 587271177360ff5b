"""What every service stands on; it knows no customer, order or product.

The stations of a request, in order:

    process      the process: settings, start, signals, drain
    app          build_app: middlewares, probes, routes, contexts
    middlewares  span, metrics, access line, error body, CORS
    routes       what a service declares about an operation, and what serves it
    http         body, query, ids, ETags in; answers out
    idempotency  a key and its effect in one transaction
    database     sessions, retried and shielded transactions
    dialects     all that differs between MariaDB/MySQL and SQLite
    client       our side of a call to a peer

Beside them: errors (one error body), pagination, correlation, openapi, probes, migrations,
settings, cli and telemetry.
"""

__version__ = "0.1.0"
