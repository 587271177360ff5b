"""The rows of sagas: start, take over, record, postpone. Each runs inside `Database.transact`.

A saga is loaded detached and written by one UPDATE that is fenced by its lease token: once another
replica has taken the saga over, the former owner writes nothing any more.
"""

from collections.abc import Sequence

from sqlalchemy import Boolean, Double, bindparam, case, delete, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import Database, changed
from chassis.http import Answer
from chassis.idempotency import Key, Keys
from orchestrator import answers, failpoints
from orchestrator.errors import SagaNotFound, SagaNotRetryable
from orchestrator.models import UNFINISHED, Base, Saga, Status

LONGEST_PAUSE_SECONDS = 120
"""More than a driver pauses a saga for."""
PURGE_BATCH = 1000
# Statements are made once: SQLAlchemy takes longer to put one together than to send it.
_SAGAS = Base.metadata.tables[Saga.__tablename__]
_TIMES = ("created_at", "updated_at", "lease_until", "resume_at", "finished_at")
_COLUMNS = {
    attribute.key: attribute.columns[0]
    for attribute in Saga.__mapper__.column_attrs
    if attribute.key not in _TIMES
}
_CHANGING = ("status", "step", "customer", "order", "refusal", "steps", "attention", "attempts")
_LEASE_END = dialects.seconds_from_now(bindparam("lease", type_=Double()))
_INSERT = insert(_SAGAS).values(
    {column: bindparam(column.name) for column in _COLUMNS.values()}
    | {_SAGAS.c[name]: dialects.now() for name in ("created_at", "updated_at")}
    | {_SAGAS.c[name]: _LEASE_END for name in ("lease_until", "resume_at")}
)
_UPDATE = (
    update(_SAGAS)
    .where(_SAGAS.c.id == bindparam("of_id"), _SAGAS.c.lease_token == bindparam("of_token"))
    .values(
        {_COLUMNS[attribute]: bindparam(f"its_{attribute}") for attribute in _CHANGING}
        | {
            _SAGAS.c.updated_at: dialects.now(),
            _SAGAS.c.finished_at: case((bindparam("is_over", type_=Boolean()), dialects.now())),
            _SAGAS.c.lease_until: _LEASE_END,
            _SAGAS.c.resume_at: dialects.seconds_from_now(bindparam("pause", type_=Double())),
        }
    )
)


class LeaseLost(Exception):  # noqa: N818 - an outcome, not an error
    """Another replica has taken the saga over."""


async def start_saga(session: AsyncSession, saga: Saga, keys: Keys, key: Key, lease: float) -> None:
    """Insert the saga and its key, leased to the caller.

    Raises:
        KeyTaken: the key has started a saga already.

    """
    await keys.claim(session, [key], saga.id)
    values = {column.name: getattr(saga, attribute) for attribute, column in _COLUMNS.items()}
    await session.execute(_INSERT, {**values, "lease": lease})


async def write_saga(session: AsyncSession, saga: Saga, keys: Keys, lease: float) -> Answer | None:
    """Write what the saga has become and renew its lease; with its end, keep and return its answer.

    Raises:
        LeaseLost: the saga is not ours any more; nothing was written.

    """
    await _write(session, saga, lease=lease, pause=lease)
    if not saga.is_over:
        return None
    answer = answers.final_answer(saga)
    await failpoints.SAGA_ENDED()
    await keys.keep(session, saga.key_scope, saga.key_value, answer)
    return answer


async def postpone_saga(session: AsyncSession, saga: Saga, seconds: float) -> None:
    """Write the saga and give its lease back; the sweeper takes it up after `seconds`.

    Raises:
        LeaseLost: the saga is not ours any more; nothing was written.

    """
    await _write(session, saga, lease=0, pause=seconds)


async def give_back(session: AsyncSession, sagas: Sequence[Saga]) -> None:
    """Give the leases of sagas back, as they are in the database; the sweeper takes them up at once.

    What the caller knows of them is not written: a write of theirs may still be under way. It comes
    before this one or finds that the saga was taken over.
    """
    ids, tokens = [saga.id for saga in sagas], [(saga.id, saga.lease_token) for saga in sagas]
    still_ours = tuple_(Saga.id, Saga.lease_token).in_(tokens)
    await changed(
        session,
        update(Saga)
        .where(Saga.id.in_(ids), still_ours, Saga.status.in_(UNFINISHED))
        .values(lease_until=dialects.now(), resume_at=dialects.now()),
    )


async def take_over_stale(session: AsyncSession, limit: int, lease: float) -> Sequence[Saga]:
    """Lease up to `limit` unfinished sagas that nobody works on; skip what other sweepers take.

    That is also what ends later than any lease or pause does: since it was given, the clock of the
    database was set back, and its owner may be gone. If it is not, the fence keeps it out.
    """
    too_late = dialects.seconds_from_now(lease + LONGEST_PAUSE_SECONDS)
    stale = (
        select(Saga)
        .where(Saga.status.in_(UNFINISHED), or_(Saga.resume_at <= dialects.now(), Saga.resume_at > too_late))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await _lease(session, (await session.scalars(stale)).all(), lease)


async def take_over(session: AsyncSession, saga_id: str, lease: float) -> Saga | None:
    """Lease this saga if it is unfinished and nobody works on it; None otherwise.

    This is no attempt: however often its client repeats the request, the sweeper has as many.
    """
    idle = select(Saga).where(
        Saga.id == saga_id, Saga.status.in_(UNFINISHED), Saga.lease_until <= dialects.now()
    )
    found = (await session.scalars(idle.with_for_update())).all()
    taken = await _lease(session, found, lease, attempts=0)
    return taken[0] if taken else None


async def retry_saga(session: AsyncSession, saga_id: str, lease: float) -> Saga:
    """Lease a saga that needs attention and let it go on.

    Raises:
        SagaNotFound, SagaNotRetryable: nothing was changed.

    """
    saga = await session.get(Saga, saga_id, with_for_update=True)
    if saga is None:
        raise SagaNotFound(f"There is no saga {saga_id}.")
    if saga.status != Status.NEEDS_ATTENTION:
        raise SagaNotRetryable(f"Saga {saga_id} is {saga.status}; only NEEDS_ATTENTION can be retried.")
    session.expunge(saga)
    saga.retry()
    await _write(session, saga, lease=0, pause=0)
    (leased,) = await _lease(session, [saga], lease)
    return leased


async def _lease(
    session: AsyncSession, sagas: Sequence[Saga], lease: float, *, attempts: int = 1
) -> Sequence[Saga]:
    """Make the caller the owner of locked sagas: a new token, a new lease, so many attempts more."""
    if not sagas:
        return []
    later = dialects.seconds_from_now(lease)
    await changed(
        session,
        update(Saga)
        .where(Saga.id.in_([saga.id for saga in sagas]))
        .values(
            lease_token=Saga.lease_token + 1,
            lease_until=later,
            resume_at=later,
            attempts=Saga.attempts + attempts,
        ),
    )
    session.expunge_all()
    for saga in sagas:
        saga.lease_token += 1
        saga.attempts += attempts
    return sagas


async def _write(session: AsyncSession, saga: Saga, *, lease: float, pause: float) -> None:
    """Write the saga, leased for `lease` seconds; after `pause` seconds the sweeper may take it."""
    values = {f"its_{attribute}": getattr(saga, attribute) for attribute in _CHANGING}
    fence = {"of_id": saga.id, "of_token": saga.lease_token}
    times = {"lease": lease, "pause": pause, "is_over": saga.is_over}
    if await changed(session, _UPDATE, {**values, **fence, **times}) != 1:
        raise LeaseLost(saga.id)


async def purge_sagas(database: Database, days: float) -> int:
    """Forget the sagas that ended more than `days` ago; those without an end stay, however old they are.

    In batches, so that no transaction is long however many there are.
    """
    total = 0
    while count := await database.transact(lambda session: _purge_batch(session, days)):
        total += count
    return total


async def _purge_batch(session: AsyncSession, days: float) -> int:
    cutoff = dialects.seconds_from_now(-days * 86_400)
    # What ended before then began before then, too: the index on that is enough.
    old = select(Saga.id).where(Saga.created_at < cutoff, Saga.finished_at < cutoff)
    ids = (await session.scalars(old.order_by(Saga.created_at, Saga.id).limit(PURGE_BATCH))).all()
    return await changed(session, delete(Saga).where(Saga.id.in_(ids))) if ids else 0
