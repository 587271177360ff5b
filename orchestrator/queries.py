"""Everything that only reads."""

from collections.abc import Sequence

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

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
    return (await session.scalars(statement)).all()


async def count_unfinished(session: AsyncSession) -> dict[str, int]:
    """How many sagas are in each state that has no answer yet."""
    waiting = (*UNFINISHED, Status.NEEDS_ATTENTION)
    statement = select(Saga.status, func.count()).where(Saga.status.in_(waiting)).group_by(Saga.status)
    found = {str(status): count for status, count in await session.execute(statement)}
    return {status: found.get(status, 0) for status in waiting}
