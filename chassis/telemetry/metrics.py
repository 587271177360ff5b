"""Every metric of the three services; served on the admin port, at `/metrics`.

Labels are bounded by construction: routes come from the router's templates, codes from the problem
classes, states from enumerations. Nothing a caller sends becomes a label.
"""

from prometheus_client import Counter, Gauge, Histogram, Info

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

HTTP_SERVER_DURATION = Histogram(
    "http_server_request_duration_seconds",
    "Time to answer a request",
    ["http_request_method", "http_route", "http_response_status_code", "error_type"],
    buckets=LATENCY,
)
HTTP_SERVER_ACTIVE = Gauge("http_server_active_requests", "Requests being served")
HTTP_CLIENT_DURATION = Histogram(
    "http_client_request_duration_seconds",
    "Time of one attempt to call a peer, until its answer is read",
    ["http_request_method", "server_address", "server_port", "http_response_status_code", "error_type"],
    buckets=LATENCY,
)
DB_DURATION = Histogram(
    "db_client_operation_duration_seconds",
    "Time of one statement, the wait for locks included",
    ["db_operation_name", "db_collection_name", "error_type"],
    buckets=LATENCY,
)
DB_CONNECTIONS = Gauge(
    "db_client_connection_count",
    "Connections to the database, in use and idle",
    ["db_client_connection_pool_name", "db_client_connection_state"],
)
DB_CONNECTIONS_MAX = Gauge(
    "db_client_connection_max", "Connections this process may hold", ["db_client_connection_pool_name"]
)
DB_CONNECTIONS_PENDING = Gauge(
    "db_client_connection_pending_requests",
    "Work that waits for a connection",
    ["db_client_connection_pool_name"],
)
DB_CONNECTION_WAIT = Histogram(
    "db_client_connection_wait_time_seconds",
    "Time to get a connection, opening one included",
    ["db_client_connection_pool_name"],
    buckets=LATENCY,
)
DB_CONNECTION_TIMEOUTS = Counter(
    "db_client_connection_timeouts_total",
    "Work that got no connection in time",
    ["db_client_connection_pool_name"],
)
LOCK_WAIT = Histogram(
    "b2b_lock_wait_seconds",
    "Time of one statement that takes locks; nearly all of it is waiting when others hold them",
    ["db_collection_name"],
    buckets=LATENCY,
)
TRANSACTION_RETRIES = Counter(
    "b2b_transaction_retries_total", "Transactions begun again, by what they lost against", ["error"]
)
IDEMPOTENCY = Counter("b2b_idempotency_total", "What became of idempotency keys", ["service", "result"])
ORDERS = Counter(
    "b2b_orders_total", "Orders created, confirmed and canceled, and requests refused", ["outcome", "reason"]
)
ORDER_VALUE = Counter("b2b_order_value_cents_total", "Value of confirmed orders", ["currency"])
STOCK_CONFLICTS = Counter("b2b_stock_conflicts_total", "Requests refused because stock was short")
SAGAS = Gauge("b2b_sagas", "Sagas without an answer yet, by state, as the last sweep found them", ["state"])
SAGAS_ENDED = Counter(
    "b2b_sagas_ended_total", "Sagas that came to an end, or to where only an operator can help", ["state"]
)
SAGA_OLDEST = Gauge(
    "b2b_saga_oldest_unfinished_seconds",
    "Age of the oldest saga without an answer, as the last sweep found it; 0 without one",
)
SAGA_STEP_DURATION = Histogram(
    "b2b_saga_step_duration_seconds",
    "Time of one step of a saga, all attempts together",
    ["step", "outcome"],
    buckets=LATENCY,
)
SAGA_COMPENSATIONS = Counter("b2b_saga_compensations_total", "Sagas whose order had to be canceled again")
SPANS = Counter("b2b_spans_total", "Spans sent to the collector, or lost on the way to it", ["result"])
READY = Gauge("b2b_ready", "1 while the service wants traffic")
DRAINING = Gauge("b2b_draining", "1 from SIGTERM to the end")
LOOP_LAG = Histogram(
    "b2b_event_loop_lag_seconds",
    "How late the event loop was for a timer: everything in the process waits as long",
    buckets=LAG,
)
BUILD_INFO = Gauge("b2b_build_info", "Always 1; the labels say what runs", ["service", "version"])
TARGET = Info("target", "The resource attributes of this process, as its traces have them")

for _error in ("deadlock", "lock_timeout", "record_changed", "stale", "duplicate", "repaired"):
    TRANSACTION_RETRIES.labels(_error)
