"""An idempotency key and its effect are one transaction.

The first request with a key inserts it, does its work, keeps the answer beside the key and commits
all three at once; nothing is half done after a crash. A twin in flight waits on the UNIQUE key of
the database, in whatever process it arrived, then answers with what the first one kept. The key is
inserted before anything is locked: reading it with FOR UPDATE first would deadlock on gap locks.

A business refusal (404, 409) is kept like a success. Anything else that goes wrong rolls back and
leaves the key free.

The rules follow the IETF draft "The Idempotency-Key HTTP Header Field" and Stripe's practice.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from sqlalchemy import SmallInteger, String, Table, bindparam, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from chassis import correlation, dialects
from chassis.database import DATABASE, Database, after_commit, changed
from chassis.errors import CONTENT_TYPE, FieldError, KeyInProgress, KeyInvalid, KeyMissing, KeyReused, Problem
from chassis.http import Answer
from chassis.telemetry.metrics import IDEMPOTENCY

HEADERS = ("Idempotency-Key", "X-Idempotency-Key")
REPLAYED = {"Idempotent-Replayed": "true"}
PROBLEMS = (KeyInvalid, KeyReused, KeyInProgress)
_VALUE = re.compile(r"[\x21-\x7e]{1,255}")
_RESULTS = ("executed", "refused", "replayed", "reused", "in_progress")

Outcome = Answer | Problem


@dataclass(frozen=True, slots=True)
class Key:
    """A key in its scope, with the fingerprint of the request it came with."""

    scope: bytes
    value: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a key: its answer once there is one, and the resource that works on it."""

    answer: Answer | None
    resource: str | None


class KeyTaken(Exception):  # noqa: N818 - an outcome, not an error
    """Someone else inserted the key first."""


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


KEY = web.RequestKey("idempotency_key", Key)


def key_of(request: web.Request, route: str, arguments: Mapping[str, Any], *, required: bool) -> Key | None:
    """Take the key from the headers or the body and bind it to this request.

    Raises:
        KeyMissing: there is none, and the operation requires one.
        KeyInvalid: it is not 1 to 255 visible ASCII characters, or two places differ.

    """
    given = [(f"header:{name}", value) for name in HEADERS for value in request.headers.getall(name, ())]
    in_body = getattr(arguments.get("body"), "idempotency_key", None)
    if in_body is not None:
        given.append(("#/idempotency_key", in_body))
    if not given:
        if required:
            raise KeyMissing(f"Send the header {HEADERS[0]} with a value of your own for this request.")
        return None
    values = {_unquoted(value) for _, value in given}
    if len(values) > 1:
        errors = [FieldError(place, "Differs from the other key.") for place, _ in given]
        raise KeyInvalid("The request carries two different idempotency keys.", errors=errors)
    place, value = given[0][0], values.pop()
    if _VALUE.fullmatch(value) is None:
        wants = FieldError(place, "Wants 1 to 255 visible ASCII characters, without spaces.")
        raise KeyInvalid("The idempotency key is not valid.", errors=[wants])
    return Key(f"anonymous {route}".encode(), value.encode(), _fingerprint(route, arguments))


def _unquoted(value: str) -> str:
    """Take the structured-field form `"abc"` and the bare form for the same."""
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _fingerprint(route: str, arguments: Mapping[str, Any]) -> bytes:
    """Hash what makes two requests the same: route, path ids and the validated body."""
    canonical = {
        name: value.model_dump(mode="json", exclude={"idempotency_key", "correlation_id"})
        if isinstance(value, BaseModel)
        else value
        for name, value in arguments.items()
    }
    return hashlib.sha256(json.dumps([route, canonical], sort_keys=True).encode()).digest()


class Keys:
    """The keys of one service."""

    def __init__(self, service: str, database: Database, table: type[KeyRow]) -> None:
        self.service = service
        self.database = database
        self.table = table
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
            KeyReused: it belongs to another request.

        """
        async with self.database.read() as session:
            return await self.find_in(session, key)

    async def find_in(self, session: AsyncSession, key: Key) -> Kept | None:
        """The same, in a session of the caller."""
        row = (await session.execute(self._find, {"of_scope": key.scope, "of_key": key.value})).one_or_none()
        if row is None:
            return None
        if row.fingerprint != key.fingerprint:
            self.count("reused")
            raise KeyReused(
                "This key was sent before with another request; use a new key for a new request.",
                retry_needs_new_key=True,
            )
        if row.status is None:
            return Kept(None, row.resource)
        kind = CONTENT_TYPE if row.status >= 400 else "application/json"  # noqa: PLR2004 - the first error status
        return Kept(Answer(row.status, row.body, json.loads(row.headers), kind), row.resource)

    async def claim(self, session: AsyncSession, keys: list[Key], resource: str | None = None) -> None:
        """Insert new keys, before anything else in the transaction.

        Raises:
            KeyTaken: one of them is there already.
            KeyInProgress: the transaction that inserted it does not end.

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
            if dialects.lost_against_others(error) == "lock_timeout":
                self.count("in_progress")
                raise KeyInProgress(
                    "The first request with this key is still running; ask again in a moment."
                ) from error
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
        """Forget the keys that were completed more than `days` ago; unfinished ones stay."""

        async def work(session: AsyncSession) -> int:
            old = self.table.completed_at < dialects.seconds_from_now(-days * 86_400)
            return await changed(session, delete(self.table).where(old))

        return await self.database.transact(work)

    def count(self, result: str) -> None:
        """Count what became of a key."""
        IDEMPOTENCY.labels(self.service, result).inc()


KEYS = web.AppKey("keys", Keys)


async def once(
    request: web.Request,
    work: Callable[[AsyncSession], Awaitable[Outcome]],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
) -> Answer:
    """Do `work` as one transaction, once for the key of the request, if it has one.

    `work` returns an Answer, or a Problem when it decided to refuse and wrote nothing; what it raises
    undoes everything. `before` is what must happen outside of the transaction, like asking a peer;
    a replay does not do it again.

    Raises:
        Problem: the refusal, when no key keeps it.

    """
    key = request.get(KEY)
    if key is None:
        if before is not None:
            await before()
        outcome = await request.app[DATABASE].transact(work)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    keys = request.app[KEYS]
    if before is not None and (kept := await keys.find(key)) is not None:
        return _replayed(keys, kept)
    refusal = await _refusal_of(before)

    async def keyed(session: AsyncSession) -> Answer:
        if before is None and (kept := await keys.find_in(session, key)) is not None:
            return _replayed(keys, kept)
        await keys.claim(session, [key])
        outcome = refusal or await work(session)
        if isinstance(outcome, Problem) and not outcome.final:
            raise outcome
        answer = final_answer(request, outcome) if isinstance(outcome, Problem) else outcome
        await keys.keep(session, key.scope, key.value, answer)
        after_commit(session, lambda: keys.count("refused" if isinstance(outcome, Problem) else "executed"))
        return answer

    try:
        return await keys.database.transact(keyed)
    except KeyTaken:
        kept = await keys.find(key)
        if kept is None:
            raise KeyInProgress("The first request with this key was just undone; ask again.") from None
        return _replayed(keys, kept)


async def _refusal_of(before: Callable[[], Awaitable[None]] | None) -> Problem | None:
    try:
        if before is not None:
            await before()
    except Problem as problem:
        if not problem.final:
            raise
        return problem
    return None


def final_answer(request: web.Request, problem: Problem) -> Answer:
    """A refusal as the answer that its key keeps."""
    problem.members["retry_needs_new_key"] = True
    body = problem.render(
        instance=request.path, correlation_id=correlation.current(), trace_id=correlation.trace_id()
    )
    return Answer(problem.status, body, problem.headers, CONTENT_TYPE)


def _replayed(keys: Keys, kept: Kept) -> Answer:
    if kept.answer is None:
        raise KeyInProgress("The first request with this key is still running; ask again in a moment.")
    keys.count("replayed")
    answer = kept.answer
    return Answer(answer.status, answer.body, {**answer.headers, **REPLAYED}, answer.content_type)
