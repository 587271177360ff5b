"""Every invariant is satisfied by a run that went well, and finds what is wrong in a doctored database."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import pytest
from aiohttp import web

import orchestrator.settings
import orders.settings
from chassis.database import Database
from tests.client import Serve
from tests.databases import DatabaseUrl, MakeSettings, execute, on_database
from tests.faults.invariants import INVARIANTS, Evidence, gather, violations
from tests.faults.run import Call
from tests.orchestrator.shop import open_shop
from tests.orchestrator.wire import PassOn

NAME = "run"
KEYS = {"well": "run-1", "canceled": "run-2", "refused": "run-3", "other": "run-4"}
"""The keys of a saga that succeeded, one that was compensated, one that failed, another that succeeded."""
CREATED = b'{"data": {"order": {"id": 1, "total_cents": 0}}}'
FINAL = b'{"retry_needs_new_key": true}'

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Traces:
    """What a run has left: what its clients saw, and the files of its databases."""

    calls: list[Call]
    sagas: Path
    orders: Path
    folder: Path
    numbers: Iterator[int]

    async def evidence(self, service: str = "orders", statement: str = "") -> Evidence:
        """What is found in copies of the databases; a statement may have doctored one of them."""
        copies = self.folder / str(next(self.numbers))
        copies.mkdir()
        files = {"orchestrator": copies / "sagas.db", "orders": copies / "orders.db"}
        shutil.copyfile(self.sagas, files["orchestrator"])
        shutil.copyfile(self.orders, files["orders"])
        if statement:
            execute(f"sqlite:///{files[service]}", statement.format(**KEYS))
        sagas = Database(orchestrator.settings.Settings(**on_database(f"sqlite:///{files['orchestrator']}")))
        orders_ = Database(orders.settings.Settings(**on_database(f"sqlite:///{files['orders']}")))
        try:
            return await gather(NAME, self.calls, sagas, orders_, healed_at=time())
        finally:
            await sagas.close()
            await orders_.close()


@pytest.fixture
async def traces(
    make_settings: MakeSettings, serve: Serve, database_url: DatabaseUrl, tmp_path: Path
) -> AsyncIterator[Traces]:
    """A run without any fault, with a saga of every end."""
    calls: list[Call] = []
    async with open_shop(make_settings, serve) as shop:
        replica = await shop.replica()

        async def cancels_first(request: web.Request, pass_on: PassOn) -> web.StreamResponse:
            await shop.cancel(int(request.path.split("/")[-2]))
            return await pass_on()

        body = await shop.basket()
        for name, key in KEYS.items():
            missing: dict[str, Any] = {"items": [{"product_id": 10**6, "qty": 1}]}
            shop.to_orders.breaks("/confirm", *([cancels_first] if name == "canceled" else []))
            for _ in range(2):
                asked = body | missing if name == "refused" else body
                reply = await replica.job(asked, key, X_Correlation_Id=key)
                calls.append(Call(key, reply.status, reply.body, reply.headers.get("Retry-After")))
        for settings in (orchestrator.settings.Settings, orders.settings.Settings):
            execute(database_url(settings), "PRAGMA wal_checkpoint(TRUNCATE)")
        files = [
            Path(database_url(settings).removeprefix("sqlite:///"))
            for settings in (orchestrator.settings.Settings, orders.settings.Settings)
        ]
        yield Traces(calls, files[0], files[1], tmp_path, count())


def names(evidence: Evidence) -> set[str]:
    return {violation.invariant for violation in violations(evidence)}


async def test_a_run_that_went_well_violates_nothing(traces: Traces) -> None:
    evidence = await traces.evidence()

    assert violations(evidence) == []
    assert {name: evidence.sagas[key].status for name, key in KEYS.items()} == {
        "well": "SUCCEEDED",
        "canceled": "COMPENSATED",
        "refused": "FAILED",
        "other": "SUCCEEDED",
    }
    assert sorted(evidence.orders) == sorted(KEYS[name] for name in ("well", "canceled", "other"))
    assert len(evidence.calls) == 8


DOCTORED = [
    (
        "one_order_per_key",
        "orders",
        "UPDATE orders SET correlation_id = '{well}' WHERE correlation_id = '{other}'",
    ),
    (
        "one_order_per_key",
        "orchestrator",
        "UPDATE sagas SET correlation_id = '{well}' WHERE correlation_id = '{other}'",
    ),
    (
        "succeeded_means_confirmed",
        "orders",
        "UPDATE orders SET status = 'CANCELED' WHERE correlation_id = '{well}'",
    ),
    (
        "succeeded_means_confirmed",
        "orders",
        "UPDATE orders SET status = 'CONFIRMED' WHERE correlation_id = '{canceled}'",
    ),
    (
        "succeeded_means_confirmed",
        "orchestrator",
        "UPDATE sagas SET status = 'RUNNING' WHERE correlation_id = '{well}'",
    ),
    (
        "succeeded_means_confirmed",
        "orchestrator",
        "DELETE FROM sagas WHERE correlation_id = '{well}'",
    ),
    (
        "failed_leaves_nothing",
        "orders",
        "UPDATE orders SET status = 'CREATED' WHERE correlation_id = '{canceled}'",
    ),
    (
        "failed_leaves_nothing",
        "orders",
        "UPDATE orders SET status = 'CREATED', correlation_id = 'run-99'",
    ),
    (
        "reconcile_finds_nothing",
        "orders",
        "UPDATE products SET stock = stock + 1",
    ),
    (
        "reconcile_finds_nothing",
        "orders",
        "DELETE FROM stock_movements WHERE kind = 'sale'",
    ),
    (
        "nothing_acknowledged_is_missing",
        "orders",
        "DELETE FROM orders WHERE correlation_id = '{well}'",
    ),
    (
        "nothing_acknowledged_is_missing",
        "orders",
        "UPDATE orders SET total_cents = 1 WHERE correlation_id = '{well}'",
    ),
    (
        "nothing_acknowledged_is_missing",
        "orchestrator",
        "DELETE FROM sagas WHERE correlation_id = '{refused}'",
    ),
    (
        "nothing_acknowledged_is_missing",
        "orchestrator",
        "UPDATE sagas SET status = 'SUCCEEDED' WHERE correlation_id = '{refused}'",
    ),
    (
        "every_saga_ends",
        "orchestrator",
        "UPDATE sagas SET status = 'COMPENSATING' WHERE correlation_id = '{canceled}'",
    ),
    (
        "every_saga_ends",
        "orchestrator",
        "UPDATE sagas SET status = 'NEEDS_ATTENTION' WHERE correlation_id = '{canceled}'",
    ),
    (
        "same_key_same_bytes",
        "orchestrator",
        "UPDATE orchestrator_idempotency_keys SET body = x'7b7d' WHERE key = x'72756e2d31'",
    ),
    (
        "same_key_same_bytes",
        "orchestrator",
        "UPDATE orchestrator_idempotency_keys SET status = 200",
    ),
    (
        "same_key_same_bytes",
        "orchestrator",
        "DELETE FROM orchestrator_idempotency_keys",
    ),
]


async def test_what_is_wrong_in_the_databases_is_found(traces: Traces) -> None:
    missed = [
        (invariant, statement)
        for invariant, service, statement in DOCTORED
        if invariant not in names(await traces.evidence(service, statement))
    ]

    assert missed == []


async def test_a_saga_that_needs_attention_for_a_stated_reason_is_no_violation(traces: Traces) -> None:
    statement = (
        "UPDATE sagas SET status = 'NEEDS_ATTENTION', attention = 'The compensation was refused: x.' "
        "WHERE correlation_id = '{canceled}'"
    )
    del traces.calls[2:4]  # its client was told something else

    evidence = await traces.evidence("orchestrator", statement)

    assert violations(evidence) == []


async def test_a_saga_that_ends_late_is_found(traces: Traces) -> None:
    evidence = await traces.evidence()

    assert names(replace(evidence, healed_at=time() - 20)) == {"every_saga_ends"}


OTHERWISE = [
    (Call("run-1", 201, CREATED), "nothing_acknowledged_is_missing"),
    (Call("run-1", 503, b'{"saga_id": "another"}', "1"), "nothing_acknowledged_is_missing"),
    (Call("run-1", 409, FINAL), "nothing_acknowledged_is_missing"),
    (Call("run-1", 409, FINAL), "same_key_same_bytes"),
    (Call("run-5", 500, b"{}"), "clients_are_told_what_to_do"),
    (Call("run-5", 503, b"{}"), "clients_are_told_what_to_do"),
    (Call("run-5", 409, b"{}"), "clients_are_told_what_to_do"),
    (Call("run-5", 400, b"{}", "1"), "clients_are_told_what_to_do"),
]


async def test_what_a_client_should_not_have_seen_is_found(traces: Traces) -> None:
    evidence = await traces.evidence()

    missed = [
        (call, invariant)
        for call, invariant in OTHERWISE
        if invariant not in names(replace(evidence, calls=[*evidence.calls, call]))
    ]

    assert missed == []


async def test_no_answer_and_a_busy_one_are_what_clients_must_expect(traces: Traces) -> None:
    traces.calls.extend(
        [Call("run-5", None, error="ServerDisconnectedError"), Call("run-5", 503, b"{}", "1")]
    )

    assert violations(await traces.evidence()) == []


def test_no_invariant_is_left_out_here(backend: str) -> None:  # noqa: ARG001 - all tests of this file have one
    shown = {invariant for invariant, *_ in DOCTORED} | {invariant for _, invariant in OTHERWISE}

    assert shown == {check.__name__ for check in INVARIANTS}
