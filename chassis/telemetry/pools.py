"""What a pool of database connections is doing: how many are out, who waits, for how long."""

from time import perf_counter

from sqlalchemy import AsyncAdaptedQueuePool, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from chassis.telemetry.metrics import (
    DB_CONNECTION_TIMEOUTS,
    DB_CONNECTION_WAIT,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    DB_CONNECTIONS_PENDING,
)


class ObservedPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool, with a place in the metrics; `logging_name` is the name it has there."""

    def _do_get(self) -> ConnectionPoolEntry:
        """Take a connection; the pool's events say neither who waits nor for how long."""
        name = self.logging_name or "none"
        pending, started = DB_CONNECTIONS_PENDING.labels(name), perf_counter()
        pending.inc()
        try:
            return super()._do_get()
        except PoolTimeoutError:
            DB_CONNECTION_TIMEOUTS.labels(name).inc()
            raise
        finally:
            pending.dec()
            DB_CONNECTION_WAIT.labels(name).observe(perf_counter() - started)


def observe_pool(engine: Engine) -> None:
    """Show the state of the engine's pool in the metrics, whenever they are read."""
    name = engine.pool.logging_name or "none"
    DB_CONNECTIONS_MAX.labels(name).set(_pool_of(engine).size())
    DB_CONNECTIONS_PENDING.labels(name)
    DB_CONNECTION_WAIT.labels(name)
    DB_CONNECTION_TIMEOUTS.labels(name)
    DB_CONNECTIONS.labels(name, "used").set_function(lambda: _pool_of(engine).checkedout())
    DB_CONNECTIONS.labels(name, "idle").set_function(lambda: _pool_of(engine).checkedin())


def _pool_of(engine: Engine) -> QueuePool:
    """Take the pool as it is now: `dispose` puts a new one in its place."""
    if not isinstance(engine.pool, QueuePool):
        raise TypeError(f"{engine.pool!r} is no pool of ours")
    return engine.pool
