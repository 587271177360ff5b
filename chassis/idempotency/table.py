"""The keys of a service, in its database: a row a key, with the answer once there is one."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web
from sqlalchemy import SmallInteger, String, Table, bindparam, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from chassis import dialects
from chassis.database import Database, changed
from chassis.errors import CONTENT_TYPE, KeyInProgress, KeyInvalid, KeyReused, Problem
from chassis.http import Answer
from chassis.idempotency.flights import Flights
from chassis.idempotency.keys import Key
from chassis.telemetry.metrics import IDEMPOTENCY

PROBLEMS = (KeyInvalid, KeyReused, KeyInProgress)
PURGE_BATCH = 1000
_REPLAYED = {"Idempotent-Replayed": "true"}
_RESULTS = ("executed", "refused", "replayed", "reused", "in_progress")

Outcome = Answer | Problem


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a key: its answer once there is one, and the resource that works on it."""

    answer: Answer | None
    resource: str | None


class KeyTaken(Exception):  # noqa: N818 - an outcome, not an error
    """Someone else inserted the key first."""


class KeyHeld(Exception):  # noqa: N818 - an outcome, not an error
    """Someone else has inserted the key, in a transaction that does not end."""


class KeyRow:
    """The columns of a service's table of keys; `status` is NULL while the work goes on."""

    scope: Mapped[bytes] = mapped_column(dialects.exact_bytes(160), primary_key=True)
    key: Mapped[bytes] = mapped_column(dialects.exact_bytes(255), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(dialects.exact_bytes(32))
    resource: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(SmallInteger)
    body: Mapped[bytes | None] = mapped_column(dialects.long_bytes())
    headers: Mapped[str | None] = mapped_column(dialects.long_text())
    created_at: Mapped[datetime] = mapped_column(dialects.UtcDateTime())
    completed_at: Mapped[datetime | None] = mapped_column(dialects.UtcDateTime(), index=True)


class Keys:
    """The keys of one service; `flights` are those that this process works on."""

    def __init__(self, service: str, database: Database, table: type[KeyRow]) -> None:
        self.service = service
        self.database = database
        self.table = table
        self.flights = Flights()
        # Statements are made once: SQLAlchemy takes longer to put one together than to send it.
        rows: Table = table.__table__  # type: ignore[attr-defined]  # the columns come with a mapped class
        this = (rows.c.scope == bindparam("of_scope"), rows.c.key == bindparam("of_key"))
        found = (rows.c.fingerprint, rows.c.status, rows.c.body, rows.c.headers, rows.c.resource)
        self._find = select(*found).where(*this)
        self._claim = insert(rows).values(created_at=dialects.now())
        answer: dict[str, Any] = {name: bindparam(f"its_{name}") for name in ("status", "body", "headers")}
        self._keep = update(rows).where(*this).values(**answer, completed_at=dialects.now())
        for result in _RESULTS:
            IDEMPOTENCY.labels(service, result)

    async def find(self, key: Key) -> Kept | None:
        """What is known of the key: one indexed read.

        Raises:
            KeyReused: it belongs to another request, which may be running in this process.

        """
        is_of_another = self.flights.is_of_another(key)
        async with self.database.read() as session:
            kept = await self.find_in(session, key)
        # Which is not asked first: if the other request comes too late, the one that has the key may be this.
        if kept is None and is_of_another:
            raise self._reused()
        return kept

    async def find_in(self, session: AsyncSession, key: Key) -> Kept | None:
        """What the database knows of the key, in a session of the caller.

        Raises:
            KeyReused: it belongs to another request.

        """
        row = (await session.execute(self._find, {"of_scope": key.scope, "of_key": key.value})).one_or_none()
        if row is None:
            return None
        if row.fingerprint != key.fingerprint:
            raise self._reused()
        if row.status is None:
            return Kept(None, row.resource)
        kind = CONTENT_TYPE if row.status >= 400 else "application/json"  # noqa: PLR2004 - the first error status
        return Kept(Answer(row.status, row.body, json.loads(row.headers), kind), row.resource)

    async def claim(self, session: AsyncSession, keys: list[Key], resource: str | None = None) -> None:
        """Insert new keys, before anything else in the transaction.

        Raises:
            KeyTaken: one of them is there already.
            KeyHeld: the transaction that inserted it does not end.

        """
        rows = [
            {"scope": key.scope, "key": key.value, "fingerprint": key.fingerprint, "resource": resource}
            for key in keys
        ]
        try:
            await session.execute(self._claim, rows)
        except IntegrityError as error:
            if dialects.is_duplicate(error):
                raise KeyTaken from error
            raise
        except DBAPIError as error:
            if dialects.is_row_locked(error):
                raise KeyHeld from error
            raise

    async def keep(self, session: AsyncSession, scope: bytes, value: bytes, answer: Answer) -> None:
        """Keep the answer of a claimed key, in the transaction of its effect."""
        answered = {
            "its_status": answer.status,
            "its_body": answer.body,
            "its_headers": json.dumps(dict(answer.headers)),
        }
        await session.execute(self._keep, {"of_scope": scope, "of_key": value, **answered})

    async def purge(self, days: float) -> int:
        """Forget the keys that were completed more than `days` ago; unfinished ones stay.

        In batches, so that no transaction is long however many there are.
        """
        total = 0
        while count := await self.database.transact(lambda session: self._purge_batch(session, days)):
            total += count
        return total

    async def _purge_batch(self, session: AsyncSession, days: float) -> int:
        completed_at = self.table.completed_at
        old = completed_at < dialects.seconds_from_now(-days * 86_400)
        # SQLite has no DELETE with a LIMIT: the batch ends with the moment of its last key.
        oldest = select(completed_at).where(old).order_by(completed_at)
        last = await session.scalar(oldest.offset(PURGE_BATCH - 1).limit(1))
        return await changed(session, delete(self.table).where(old if last is None else completed_at <= last))

    def replayed(self, answer: Answer) -> Answer:
        """An answer that was given before, marked as such."""
        self.count("replayed")
        return Answer(answer.status, answer.body, {**answer.headers, **_REPLAYED}, answer.content_type)

    def count(self, result: str) -> None:
        """Count what became of a key."""
        IDEMPOTENCY.labels(self.service, result).inc()

    def _reused(self) -> KeyReused:
        self.count("reused")
        return KeyReused(
            "This key was sent before with another request; use a new key for a new request.",
            retry_needs_new_key=True,
        )


KEYS = web.AppKey("keys", Keys)
