"""Crash anywhere: the key, the change and the stored answer are one transaction, for every operation."""

import aiohttp
import pytest

from tests.idempotency.cut import Where, cut
from tests.idempotency.dying import Moment, dying
from tests.idempotency.system import Operation, is_marked

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sagas_may_be_taken_over(operation: Operation) -> None:
    """Let so much time pass that the saga of a dead replica is anybody's."""
    if operation.service == "orchestrator":
        past = "UPDATE sagas SET lease_until = '2020-01-01 00:00:00.000000', resume_at = lease_until"
        await operation.system.sql("orchestrator", past)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_process_killed_around_its_commit_leaves_nothing_half_done(
    operation: Operation, moment: Moment
) -> None:
    key = {"Idempotency-Key": operation.key}
    told = operation.system.told(operation.service)

    async with dying(operation.service, told, moment) as client:
        with pytest.raises(aiohttp.ClientError):
            await client.post(operation.first.path, operation.first.body, headers=key)
    kept = [row for row in await operation.kept() if row.status is not None]
    await sagas_may_be_taken_over(operation)
    reply = await operation.send()

    assert len(kept) == (moment == "after")
    assert reply.status == operation.status, reply.text
    assert is_marked(reply) == (moment == "after" or operation.service == "orchestrator")
    assert await operation.effect() == operation.once
    again = await operation.send(at=1)
    assert (again.status, again.body) == (reply.status, reply.body)
    assert await operation.effect() == operation.once


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True, scope="module")
@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_commit_whose_outcome_is_unknown_is_settled_by_the_unique_key(
    operation: Operation, where: Where
) -> None:
    statement = f"UPDATE {operation.table}"

    async with cut(operation.system.urls[operation.service], where, statement) as url:
        open_replica = {
            "orders": operation.system.open_orders,
            "orchestrator": operation.system.open_orchestrator,
        }[operation.service]
        replica = await open_replica(database_url=url)
        key = {"Idempotency-Key": operation.key}
        unknown = await replica.client.post(operation.first.path, operation.first.body, headers=key)
    await sagas_may_be_taken_over(operation)
    reply = await operation.send()

    # The orchestrator writes its saga again, by itself and under its fence.
    assert unknown.status == (503 if operation.service == "orders" else operation.status), unknown.text
    assert reply.status == operation.status, reply.text
    assert is_marked(reply) == (where == "after" or operation.service == "orchestrator")
    assert await operation.effect() == operation.once
    again = await operation.send(at=1)
    assert (again.status, again.body) == (reply.status, reply.body)
