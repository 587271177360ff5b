"""The one way to the database.

A query opens `read()`. A command is given to `transact()`, which runs it as one transaction: begun
again from the start when it lost against others, never cancelled half-way (a cancelled task would
leave its row locks until the running statement ends), bounded by the database's own timeouts. Where
these cannot help, because the database or the network to it is silent, both are given up after
`db_timeout` seconds, and their connection with them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import stamina
from aiohttp import web
from sqlalchemy import CursorResult, Delete, Update, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from chassis import dialects
from chassis.errors import (
    DatabaseContended,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    PoolExhausted,
    Problem,
    SchemaBroken,
    SchemaMigrating,
    SchemaOutdated,
)
from chassis.settings import Settings
from chassis.telemetry import pools, spans
from chassis.telemetry.metrics import TRANSACTION_RETRIES

_DETAILS: dict[type[Problem], str] = {
    DatabaseUnavailable: "The database cannot be reached; repeat in a moment, with the same idempotency key "
    "if any.",
    DatabaseContended: "Other requests kept the rows locked; try again in a moment.",
    PoolExhausted: "No database connection became free in time; try again in a moment.",
    DatabaseReadOnly: "Nothing was written; repeat in a moment, with the same idempotency key if any.",
    DatabaseFull: "Nothing was written; repeat once there is room, with the same idempotency key if any.",
    SchemaOutdated: "The database schema is not what this release needs; run the command migrate.",
    SchemaMigrating: "The service has just started and prepares its database; try again in a moment.",
    SchemaBroken: "A migration of the database failed and is tried again; the log has the reason.",
}
_KINDS: tuple[tuple[Callable[[DBAPIError], object], type[Problem]], ...] = (
    (dialects.is_unreachable, DatabaseUnavailable),
    (dialects.is_read_only, DatabaseReadOnly),
    (dialects.is_full, DatabaseFull),
    (dialects.lacks_schema, SchemaOutdated),
    (dialects.lost_against_others, DatabaseContended),
)
PROBLEMS = tuple(_DETAILS)
"""What any work on the database may be refused with."""
_COMMITTED = "b2b_after_commit"

T = TypeVar("T")
Work = Callable[[AsyncSession], Awaitable[T]]


class Lost(Exception):  # noqa: N818 - an outcome, not an error
    """Raised by a command: roll back and begin again.

    `reason` is the label of the retry metric. `repair` is run as a transaction of its own before the
    next attempt, for what has to be put right first.
    """

    def __init__(self, reason: str, repair: "Work[Any] | None" = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.repair = repair


class Database:
    """Engines, sessions and transactions of one service."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.sqlalchemy_url
        self.refusal: type[Problem] | None = None
        """Why there can be no work yet, while the service starts."""
        self._attempts = settings.db_attempts
        self._timeout = settings.db_timeout
        self.readers, self.writers = dialects.create_engines(
            self.url,
            pool_size=settings.db_pool_size,
            pool_timeout=settings.db_pool_timeout,
            lock_timeout=settings.db_lock_timeout,
            idle_timeout=settings.db_timeout,
        )
        self.probes = dialects.create_engine(self.url, "probes", lock_timeout=1)
        for engine in self.engines:
            spans.observe_statements(engine.sync_engine)
        for engine in {self.readers, self.writers}:
            pools.observe_pool(engine.sync_engine)
        self._read = async_sessionmaker(self.readers, expire_on_commit=False)
        self._probe = async_sessionmaker(self.probes, expire_on_commit=False)
        self._write = async_sessionmaker(self.writers, expire_on_commit=False)
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def readers_wait_for_nobody(self) -> bool:
        """Whether writers have a connection of their own, which each has to wait for."""
        return self.readers is not self.writers

    @property
    def engines(self) -> set[AsyncEngine]:
        """Those of readers, writers and probes; the first two may be one."""
        return {self.readers, self.writers, self.probes}

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for queries.

        Raises:
            Problem: one of PROBLEMS, the database cannot be used now.

        """
        self._admit()
        with translated_errors():
            async with self._answered(), self._read() as session:
                yield session

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[AsyncSession]:
        """A session for readiness, on a connection of its own.

        A pool in which nothing is free is load: if replicas became unready of it, they all would.

        Raises:
            Problem: one of PROBLEMS, the database cannot be used now.

        """
        self._admit()
        with translated_errors():
            async with self._probe() as session:
                yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """A session whose queries all see one moment of the database; they may take as long as they need."""
        self._admit()
        with translated_errors():
            async with self._read() as session:
                await dialects.freeze(session)
                yield session

    async def transact(self, work: Work[T]) -> T:
        """Run `work` as one transaction and commit it; it may be called several times.

        Raises:
            DatabaseContended: it lost on every attempt.
            Problem: another of PROBLEMS, the database cannot be used now.

        """
        self._admit()
        task = asyncio.create_task(self._until_done(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _until_done(self, work: Work[T]) -> T:
        with translated_errors():
            async for attempt in stamina.retry_context(
                on=_lost,
                attempts=self._attempts,
                timeout=None,
                wait_initial=0.005,
                wait_max=0.5,
                wait_jitter=0.02,
            ):
                with attempt:
                    try:
                        return await self._once(work)
                    except Lost as lost:
                        if lost.repair is not None:
                            await self._once(lost.repair)
                        raise
        raise AssertionError("the loop above returns or raises")  # pragma: no cover - for the type checker

    async def _once(self, work: Work[T]) -> T:
        async with self._answered(), self._write() as session, session.begin() as transaction:
            result = await work(session)
            with spans.commit(session.get_bind()):
                await transaction.commit()
        for callback in session.info.pop(_COMMITTED, ()):
            callback()
        return result

    def _admit(self) -> None:
        if self.refusal is not None:
            raise self.refusal(_DETAILS[self.refusal])

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Give up a database that says nothing, though its connection is open."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise DatabaseUnavailable(_DETAILS[DatabaseUnavailable]) from error

    async def check(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Problem: one of PROBLEMS, there is none.

        """
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Let running transactions end, then close the connections.

        One that begins again and again, because others keep its rows, is not waited for longer than one
        attempt may take: it is undone with its connection.
        """
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for engine in self.engines:
            await engine.dispose()


def after_commit(session: AsyncSession, callback: Callable[[], None]) -> None:
    """Call back once the transaction of this session is committed, and never if it is not."""
    # A listener for SQLAlchemy's event of this name would slow down all events of this session.
    session.info.setdefault(_COMMITTED, []).append(callback)


async def changed(
    session: AsyncSession, statement: Update | Delete, parameters: Mapping[str, Any] | None = None
) -> int:
    """Execute the statement; tell how many rows its WHERE clause matched."""
    options = {"synchronize_session": False}
    result = await session.execute(statement, parameters, execution_options=options)
    return cast("CursorResult[Any]", result).rowcount


DATABASE = web.AppKey("database", Database)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what SQLAlchemy raises into the problem a caller may see; bugs stay what they are."""
    try:
        yield
    except Lost as lost:
        raise DatabaseContended(
            f"The transaction was given up after several attempts: {lost.reason}."
        ) from lost
    except (DBAPIError, PoolTimeoutError) as error:
        kind = _kind_of(error)
        if kind is None:
            raise
        raise kind(_DETAILS[kind]) from error


def _kind_of(error: DBAPIError | PoolTimeoutError) -> type[Problem] | None:
    if isinstance(error, PoolTimeoutError):
        return PoolExhausted
    for applies, kind in _KINDS:
        if applies(error):
            return kind
    return None


def _lost(error: Exception) -> bool:
    """Whether to begin again; counts the reason."""
    reason = None
    if isinstance(error, Lost):
        reason = error.reason
    elif isinstance(error, DBAPIError):
        reason = dialects.lost_against_others(error)
    if reason is not None:
        TRANSACTION_RETRIES.labels(reason).inc()
    return reason is not None
