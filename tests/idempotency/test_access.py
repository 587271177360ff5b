"""Who may use a key: that is settled before it is looked up, and a key is one principal's own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.client import Reply
from tests.idempotency.system import AdjustStock, CreateAndConfirmOrder, Operation, Replica, System, is_replay
from tests.issuer import Issuer, open_issuer
from tests.observed import statements_sent

pytestmark = pytest.mark.asyncio(loop_scope="module")

Guarded = dict[str, Replica]
"""Replicas that take access tokens, by service."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    """Who signs access tokens."""
    async with open_issuer() as opened:
        yield opened


async def open_guarded(system: System, **told: Any) -> Guarded:
    return {
        "orders": await system.open_orders(**told),
        "orchestrator": await system.open_orchestrator(**told),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(system: System, issuer: Issuer) -> Guarded:
    """Replicas that take access tokens."""
    return await open_guarded(system, **issuer.settings())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(system: System, issuer: Issuer) -> Guarded:
    """Replicas that let a principal call once in a long time."""
    return await open_guarded(system, **issuer.settings(rate_limit=0.001, rate_burst=1))


def scope_of(operation: Operation) -> str:
    if isinstance(operation, CreateAndConfirmOrder):
        return "sagas:write"
    return "products:write" if isinstance(operation, AdjustStock) else "orders:write"


async def send(operation: Operation, replicas: Guarded, headers: dict[str, str]) -> Reply:
    client = replicas[operation.service].client
    headers = headers | {"Idempotency-Key": operation.key}
    return await client.post(operation.first.path, operation.first.body, headers=headers)


async def test_authorisation_comes_before_the_look_up_on_every_replay(
    operation: Operation, guarded: Guarded, issuer: Issuer
) -> None:
    may = issuer.bearer(scope_of(operation))
    first = await send(operation, guarded, may)

    with statements_sent(guarded[operation.service].database) as sent:
        refusals = [
            await send(operation, guarded, headers)
            for headers in ({}, issuer.bearer(scope_of(operation), exp=1), issuer.bearer("orders:read"))
        ]

    assert first.status == operation.status, first.text
    assert [reply.status for reply in refusals] == [401, 401, 403]
    assert sent == []
    assert is_replay(await send(operation, guarded, may), of=first)


async def test_401_403_and_429_are_not_stored_and_leave_the_key_free(
    operation: Operation, guarded: Guarded, slow: Guarded, issuer: Issuer
) -> None:
    scope = scope_of(operation)
    may = issuer.bearer(scope, sub=operation.key)
    await slow[operation.service].client.post(operation.bad.path, operation.bad.body, headers=may)

    refusals = [
        await send(operation, guarded, {}),
        await send(operation, guarded, issuer.bearer("orders:read", sub=operation.key)),
        await send(operation, slow, may),
    ]
    kept = await operation.kept()
    first = await send(operation, guarded, may)

    assert [reply.status for reply in refusals] == [401, 403, 429]
    assert int(refusals[2].headers["Retry-After"]) > 0
    assert kept == []
    assert first.status == operation.status, first.text
    assert "Idempotent-Replayed" not in first.headers
    assert await operation.effect() == operation.once


async def test_a_key_is_of_one_principal(operation: Operation, guarded: Guarded, issuer: Issuer) -> None:
    alice, bob = [issuer.bearer(scope_of(operation), sub=name) for name in ("alice", "bob")]
    first = await send(operation, guarded, alice)

    others = await send(operation, guarded, bob)

    assert first.status == operation.status, first.text
    assert "Idempotent-Replayed" not in others.headers
    assert len(await operation.kept()) == 2
    assert is_replay(await send(operation, guarded, alice), of=first)
    assert is_replay(await send(operation, guarded, bob), of=others)
