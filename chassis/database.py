"""The one way to the database.

A query opens `read()`. A command is given to `transact()`, which runs it as one transaction: begun
again from the start when it lost against others, never cancelled half-way (a cancelled task would
leave its row locks until the running statement ends), bounded by the database's own timeouts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import stamina
from aiohttp import web
from sqlalchemy import CursorResult, Delete, Update, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis import dialects
from chassis.errors import DatabaseContended, DatabaseUnavailable, PoolExhausted, Problem, SchemaOutdated
from chassis.settings import Settings
from chassis.telemetry import spans
from chassis.telemetry.metrics import TRANSACTION_RETRIES

PROBLEMS = (DatabaseUnavailable, DatabaseContended, PoolExhausted, SchemaOutdated)

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
        self._attempts = settings.db_attempts
        self.readers, self.writers = dialects.create_engines(
            self.url,
            pool_size=settings.db_pool_size,
            pool_timeout=settings.db_pool_timeout,
            lock_timeout=settings.db_lock_timeout,
        )
        for engine in {self.readers, self.writers}:
            spans.observe_statements(engine.sync_engine)
        self._read = async_sessionmaker(self.readers, expire_on_commit=False)
        self._write = async_sessionmaker(self.writers, expire_on_commit=False)
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for queries.

        Raises:
            PoolExhausted, DatabaseUnavailable: the database cannot be used now.

        """
        with translated_errors():
            async with self._read() as session:
                yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """A session whose queries all see one moment of the database."""
        async with self.read() as session:
            await dialects.freeze(session)
            yield session

    async def transact(self, work: Work[T]) -> T:
        """Run `work` as one transaction and commit it; it may be called several times.

        Raises:
            DatabaseContended: it lost on every attempt.
            PoolExhausted, DatabaseUnavailable: the database cannot be used now.

        """
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
        async with self._write() as session, session.begin() as transaction:
            result = await work(session)
            with spans.commit(session.get_bind()):
                await transaction.commit()
            return result

    async def check(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseUnavailable: there is none.

        """
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Let running transactions end, then close the connections."""
        if self._running:
            await asyncio.wait(self._running)
        for engine in {self.readers, self.writers}:
            await engine.dispose()


def after_commit(session: AsyncSession, callback: Callable[[], None]) -> None:
    """Call back once the transaction of this session is committed, and never if it is not."""
    event.listen(session.sync_session, "after_commit", lambda _session: callback(), once=True)


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
        problem = _as_problem(error)
        if problem is None:
            raise
        raise problem from error


def _as_problem(error: DBAPIError | PoolTimeoutError) -> Problem | None:
    if isinstance(error, PoolTimeoutError):
        return PoolExhausted("No database connection became free in time; try again in a moment.")
    if dialects.is_unreachable(error):
        return DatabaseUnavailable(
            "The database cannot be reached; repeat in a moment, with the same idempotency key if any."
        )
    if dialects.lacks_schema(error):
        return SchemaOutdated("The database schema is not what this release needs; run the command migrate.")
    if dialects.lost_against_others(error):
        return DatabaseContended("Other requests kept the rows locked; try again in a moment.")
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
