"""All that differs between MariaDB/MySQL and SQLite. Nothing else asks which database it talks to.

MariaDB and MySQL run with READ COMMITTED, UTC and a short row-lock timeout. SQLite runs in WAL mode;
it has no row locks, so a writer takes the whole database with BEGIN IMMEDIATE, which gives every
`SELECT … FOR UPDATE` of ours what it needs: nobody writes between the read and the write.
"""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    AsyncAdaptedQueuePool,
    BigInteger,
    BindParameter,
    ColumnElement,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    String,
    Subquery,
    Text,
    Update,
    bindparam,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from chassis.mysql import connect, initialize_or_disconnect, ping_the_idle
from chassis.telemetry.pools import ObservedPool

# --- column types -------------------------------------------------------------------------------

BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit id that the database counts up; SQLite counts only a column called INTEGER."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with microseconds, always aware and in UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Ask MariaDB and MySQL for the microseconds, which they leave out by default."""
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature
        """Store as naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature
        """Read as aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Json(TypeDecorator[Any]):
    """JSON kept as the text we wrote; MySQL's own type would sort the keys."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Up to 16 MiB."""
        return dialect.type_descriptor(long_text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ANN401, ARG002 - JSON; signature
        """Write."""
        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002 - JSON; signature
        """Read."""
        return None if value is None else json.loads(value)


def exact_text(length: int) -> TypeEngine[str]:
    """Text compared byte by byte; the default collation takes `key-1` and `Kéy-1` for the same.

    Spaces at the end do not count on MariaDB and MySQL: schemas strip them, keys are `exact_bytes`.
    """
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )


def free_text(length: int) -> TypeEngine[str]:
    """Text that people search in, without regard to case."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_unicode_ci"), "mysql"
    )


def exact_bytes(length: int) -> TypeEngine[bytes]:
    """At most `length` bytes, comparable and indexable."""
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql")


def long_bytes() -> TypeEngine[bytes]:
    """Up to 16 MiB."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")


def long_text() -> TypeEngine[str]:
    """Up to 16 MiB of text in UTF-8."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


TABLE_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
"""For every `op.create_table`; the server's default may be another character set."""


# --- SQL expressions ----------------------------------------------------------------------------


class now(FunctionElement[datetime]):  # noqa: N801 - an SQL function
    """The database's clock, in UTC with microseconds (milliseconds on SQLite)."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(now, "mysql")
def _now_mysql(_element: now, _compiler: SQLCompiler, **_kw: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return "UTC_TIMESTAMP(6)"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_kw: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


class seconds_from_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function
    """The database's clock plus a number of seconds, which may be negative or a parameter."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float | BindParameter[float]) -> None:
        given = isinstance(seconds, BindParameter)
        super().__init__(seconds if given else bindparam(None, seconds, Double(), unique=True))


@compiles(seconds_from_now, "mysql")
def _from_now_mysql(element: seconds_from_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return f"(UTC_TIMESTAMP(6) + INTERVAL {compiler.process(element.clauses, **kw)} * 1000000 MICROSECOND)"


@compiles(seconds_from_now, "sqlite")
def _from_now_sqlite(element: seconds_from_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    amount = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {amount} || ' seconds') || '000')"


def name_of(session: AsyncSession) -> str:
    """`mysql`, which is MariaDB, too, or `sqlite`."""
    return session.get_bind().dialect.name


def values_of(dialect: str, parameter: str, **columns: type[int] | type[str]) -> Subquery:
    """A table made of one JSON parameter, so that one statement of one text changes any number of rows.

    The parameter is the JSON text of a list of objects; `columns` names their members and what these are.
    """
    payload = bindparam(parameter, type_=Text())
    if dialect == "sqlite":
        each = func.json_each(payload).table_valued("value")
        return select(
            *(
                func.json_extract(each.c.value, f"$.{name}", type_=_sql_type(kind)).label(name)
                for name, kind in columns.items()
            )
        ).subquery("given")
    spec = ", ".join(
        f"{name} {'BIGINT' if kind is int else 'VARCHAR(255) CHARACTER SET utf8mb4'} PATH '$.{name}'"
        for name, kind in columns.items()
    )
    table = func.json_table(payload, text(f"'$[*]' COLUMNS ({spec})")).table_valued(
        *columns, name="given_json"
    )
    return select(*(table.c[name].label(name) for name in columns)).subquery("given")


@compiles(Update, "mysql")
def _update_mysql(element: Update, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    """Let an UPDATE with `values_of` go by the ids: scanning a small table would wait for all of its rows."""
    statement = compiler.visit_update(element, **kw)
    table = compiler.preparer.format_table(element.table)
    return statement.replace(f"UPDATE {table}, ", f"UPDATE {table} FORCE INDEX (PRIMARY), ", 1)


def _sql_type(kind: type[int] | type[str]) -> TypeEngine[Any]:
    return BigInteger() if kind is int else Text()


async def next_ids(session: AsyncSession, column: Any, count: int) -> list[int] | list[None]:  # noqa: ANN401 - mapped attributes
    """Ids for new rows where the writer has the database to itself; None each where it counts by itself.

    SQLite returns the ids of inserted rows in no order, so rows without one would be inserted singly.
    """
    if name_of(session) != "sqlite":
        return [None] * count
    last = await session.scalar(select(func.coalesce(func.max(column), 0)))
    return list(range(last + 1, last + 1 + count))


def contains(column: ColumnElement[str] | Any, needle: str) -> ColumnElement[bool]:  # noqa: ANN401 - mapped attributes
    """Whether `needle` occurs in the column, `%` and `_` taken literally."""
    escaped = needle.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern: ColumnElement[bool] = column.like(f"%{escaped}%", escape="\\")
    return pattern


# --- engines ------------------------------------------------------------------------------------


def create_engines(
    url: URL, *, pool_size: int, pool_timeout: float, lock_timeout: int, idle_timeout: float
) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine for readers and the engine for writers; one and the same on MariaDB and MySQL.

    On SQLite the writers share one connection: they would only wait for one another inside SQLite,
    whose waiting polls and is not fair.
    """
    if url.get_backend_name() == "sqlite":
        readers = create_engine(
            url, "readers", pool_size=pool_size, pool_timeout=pool_timeout, lock_timeout=lock_timeout
        )
        writers = create_engine(url, "writers", pool_timeout=pool_timeout, lock_timeout=lock_timeout)
        return readers, writers
    engine = create_engine(
        url,
        "all",
        pool_size=pool_size,
        pool_timeout=pool_timeout,
        lock_timeout=lock_timeout,
        idle_timeout=idle_timeout,
    )
    return engine, engine


PoolName = Literal["all", "readers", "writers", "probes", "migration"]
_OBSERVED = ("all", "readers", "writers")
"""The pools of requests; the others are one connection each."""


def create_engine(  # noqa: PLR0913 - what a pool and its connections are told
    url: URL,
    name: PoolName,
    *,
    pool_size: int = 1,
    pool_timeout: float = 1,
    lock_timeout: int,
    idle_timeout: float = 0,
) -> AsyncEngine:
    """One pool of connections; on SQLite all but those that only read take the database to begin.

    Where the server can, it cuts a transaction off that has sent nothing for `idle_timeout` seconds; 0
    is for ever.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, name, pool_size, pool_timeout, lock_timeout)
    engine = create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        poolclass=ObservedPool if name in _OBSERVED else AsyncAdaptedQueuePool,
        pool_logging_name=name,
        hide_parameters=True,  # as above
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_recycle=300,
        pool_pre_ping=True,
        pool_reset_on_return=None,  # sessions end their transactions themselves: it would be a ROLLBACK more
        connect_args={
            "charset": "utf8mb4",
            "async_creator_fn": connect,
            # MariaDB makes a join of an IN of a thousand ids, which then scans, and locks, the whole table.
            # A backup or an ALTER TABLE that locks whole tables is waited for no longer than a row.
            # A process that stands still, or cannot be reached any more, in the middle of a transaction
            # would keep its locks for hours.
            "init_command": f"SET time_zone = '+00:00', innodb_lock_wait_timeout = {lock_timeout}, "
            f"lock_wait_timeout = {lock_timeout}"
            "/*M! , in_predicate_conversion_threshold = 0, "
            f"idle_transaction_timeout = {ceil(idle_timeout)} */",
        },
    )
    initialize_or_disconnect(engine.dialect)
    ping_the_idle(engine.dialect)
    return engine


def _sqlite_engine(
    url: URL, name: PoolName, pool_size: int, pool_timeout: float, lock_timeout: int
) -> AsyncEngine:
    if url.database is not None:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    begin = "BEGIN" if name in ("readers", "probes") else "BEGIN IMMEDIATE"
    engine = create_async_engine(
        url,
        poolclass=ObservedPool if name in _OBSERVED else AsyncAdaptedQueuePool,
        pool_logging_name=name,
        hide_parameters=True,  # as above
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection
        connection.isolation_level = None  # sqlite3 must not begin transactions by itself
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {lock_timeout * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged order survives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def freeze(session: AsyncSession) -> None:
    """Let all reads of a new session see one moment of the database, as SQLite's do anyway."""
    if session.get_bind().dialect.name == "mysql":
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


@asynccontextmanager
async def migration_lock(connection: AsyncConnection, name: str, wait: int) -> AsyncIterator[None]:
    """Let one process at a time migrate `name`; the others wait up to `wait` seconds.

    Raises:
        TimeoutError: another process still holds the lock.

    """
    if connection.dialect.name == "sqlite":  # BEGIN IMMEDIATE is the lock, and DDL is part of the transaction
        yield
        return
    if not await connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": wait}):
        raise TimeoutError(f"another process holds the migration lock {name}")
    try:
        yield
    finally:
        if not connection.invalidated:  # a connection that broke has lost its locks
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


# --- errors -------------------------------------------------------------------------------------

_DUPLICATE = 1062
_LOCK_TIMEOUT = 1205
_LOST = {1213: "deadlock", _LOCK_TIMEOUT: "lock_timeout", 1020: "record_changed"}


def _mysql_code(error: DBAPIError) -> int | None:
    args = getattr(error.orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


def _sqlite_code(error: DBAPIError) -> int | None:
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # without what extended codes add


def lost_against_others(error: DBAPIError) -> str | None:
    """Name why a transaction may succeed when it is begun again: the label of the retry metric."""
    if type(error.orig).__module__.startswith("sqlite3"):
        return "lock_timeout" if "database is locked" in str(error.orig) else None
    return _LOST.get(_mysql_code(error) or 0)


def is_row_locked(error: DBAPIError) -> bool:
    """Whether another transaction kept a row locked for too long; SQLite only locks everything."""
    return _mysql_code(error) == _LOCK_TIMEOUT


def is_duplicate(error: DBAPIError) -> bool:
    """Whether a UNIQUE key refused the row."""
    if type(error.orig).__module__.startswith("sqlite3"):
        return "UNIQUE constraint failed" in str(error.orig)
    return _mysql_code(error) == _DUPLICATE


def lacks_schema(error: DBAPIError) -> bool:
    """Whether a table or a column is missing: the migrations have not been applied."""
    text_of = str(error.orig)
    return _mysql_code(error) in (1146, 1054) or any(
        words in text_of for words in ("no such table", "no such column", "has no column named")
    )


def is_read_only(error: DBAPIError) -> bool:
    """Whether the database takes no writes, on purpose."""
    return _mysql_code(error) in (1290, 1792, 1836) or _sqlite_code(error) == sqlite3.SQLITE_READONLY


def is_full(error: DBAPIError) -> bool:
    """Whether there is no room for what was to be written; the statement, or the transaction, was undone."""
    return _mysql_code(error) in (1021, 1114) or _sqlite_code(error) == sqlite3.SQLITE_FULL


def is_unreachable(error: DBAPIError) -> bool:
    """Whether the database cannot be reached, refuses us, or the connection broke."""
    unreachable = (1040, 1044, 1045, 1049, 1053, 1927, 2002, 2003, 2006, 2013, 2014)
    return (
        error.connection_invalidated
        or _mysql_code(error) in unreachable
        or _sqlite_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB)
    )
