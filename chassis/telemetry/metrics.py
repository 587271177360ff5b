"""Every metric of the three services; served on the admin port, at `/metrics`.

Labels are bounded by construction: routes come from the router's templates, codes from the problem
classes, states from enumerations. Nothing a caller sends becomes a label.
"""

from prometheus_client import Counter, Gauge, Histogram

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

HTTP_SERVER_DURATION = Histogram(
    "http_server_request_duration_seconds",
    "Time to answer a request",
    ["http_request_method", "http_route", "http_response_status_code", "error_type"],
    buckets=LATENCY,
)
HTTP_SERVER_ACTIVE = Gauge("http_server_active_requests", "Requests being served")
DB_DURATION = Histogram(
    "db_client_operation_duration_seconds",
    "Time of one statement, the wait for locks included",
    ["db_operation_name", "db_collection_name"],
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
SAGA_STEP_DURATION = Histogram(
    "b2b_saga_step_duration_seconds",
    "Time of one step of a saga, all attempts together",
    ["step", "outcome"],
    buckets=LATENCY,
)
SAGA_COMPENSATIONS = Counter("b2b_saga_compensations_total", "Sagas whose order had to be canceled again")
READY = Gauge("b2b_ready", "1 while the service wants traffic")
DRAINING = Gauge("b2b_draining", "1 from SIGTERM to the end")
BUILD_INFO = Gauge("b2b_build_info", "Always 1; the labels say what runs", ["service", "version"])

for _error in ("deadlock", "lock_timeout", "record_changed", "stale", "duplicate", "repaired"):
    TRANSACTION_RETRIES.labels(_error)
