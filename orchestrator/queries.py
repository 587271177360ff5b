"""Everything that only reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from orchestrator.errors import SagaNotFound
from orchestrator.models import UNFINISHED, Saga, Status
from orchestrator.schemas import FindSagas


async def get_saga(session: AsyncSession, saga_id: str) -> Saga:
    """One saga.

    Raises:
        SagaNotFound: there is none with this id.

    """
    saga = await session.get(Saga, saga_id)
    if saga is None:
        raise SagaNotFound(f"There is no saga {saga_id}.")
    return saga


async def get_state(session: AsyncSession, saga_id: str) -> Row[Status, bool]:
    """The `status` of a saga, and `is_idle`: whether its lease is over. Locks nothing: its owner is spared.

    Raises:
        NoResultFound: there is no saga with this id.

    """
    is_idle = (Saga.lease_until <= dialects.now()).label("is_idle")
    return (await session.execute(select(Saga.status, is_idle).where(Saga.id == saga_id))).one()


async def find_sagas(session: AsyncSession, query: FindSagas) -> Sequence[Saga]:
    """Up to `limit` + 1 sagas, newest first."""
    statement = select(Saga).order_by(Saga.created_at.desc(), Saga.id.desc()).limit(query.limit + 1)
    if (after := query.position()) is not None:
        created_at, saga_id = after
        # Written out: MariaDB finds no index range for a comparison of row values.
        earlier = or_(Saga.created_at < created_at, and_(Saga.created_at == created_at, Saga.id < saga_id))
        statement = statement.where(Saga.created_at <= created_at, earlier)
    if query.status is not None:
        statement = statement.where(Saga.status == query.status)
    if query.correlation_id is not None:
        statement = statement.where(Saga.correlation_id == query.correlation_id)
    if query.trace_id is not None:
        # A range and no LIKE: SQLite finds no index for one.
        first = f"00-{query.trace_id}-"
        statement = statement.where(Saga.traceparent.between(first, first + "~"))
    return (await session.scalars(statement)).all()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Sagas in one state that has no answer yet; `oldest` is the age of the oldest one, in seconds."""

    count: int
    oldest: float


async def unfinished(session: AsyncSession) -> dict[Status, Unfinished]:
    """How many sagas wait for their end in each state, and since when, by the database's clock."""
    waiting = (*UNFINISHED, Status.NEEDS_ATTENTION)
    statement = (
        select(Saga.status, func.count(), func.min(Saga.created_at), dialects.now())
        .where(Saga.status.in_(waiting))
        .group_by(Saga.status)
    )
    found = {
        Status(status): Unfinished(count, (now - since).total_seconds())
        for status, count, since, now in await session.execute(statement)
    }
    return {status: found.get(status, Unfinished(0, 0.0)) for status in waiting}
