"""Leases and fencing tokens, on the rows themselves: nobody here drives a saga."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import Database
from chassis.http import Answer
from chassis.idempotency import Key, Keys, KeyTaken
from orchestrator import commands, queries
from orchestrator.commands import LeaseLost
from orchestrator.errors import SagaNotFound, SagaNotRetryable
from orchestrator.models import IdempotencyKey, Saga, Status, Step
from orchestrator.settings import Settings
from tests.databases import MakeSettings
from tests.observed import statements_sent
from tests.orchestrator.shop import lease_runs_out, until

Command = Callable[[AsyncSession, str, float], Awaitable[Any]]
LEASE = 30
REFUSAL = {"code": "customer.not_found", "members": {}}


def a_key(value: str) -> Key:
    return Key(b"anonymous POST /orchestrator/create-and-confirm-order", value.encode(), b"f" * 32)


@dataclass(frozen=True, slots=True)
class Replica:
    """The commands of one replica, each in a transaction of its own."""

    database: Database
    keys: Keys

    async def start(self, key: str = "key-1", **fields: Any) -> Saga:
        """Start a saga and return it as its replica has it."""
        saga = Saga(
            **{
                "id": uuid4().hex,
                "status": Status.RUNNING,
                "step": Step.VALIDATE_CUSTOMER,
                "request": {"customer_id": 7, "items": []},
                "steps": [],
                "attempts": 1,
                "correlation_id": "req-456",
                "traceparent": "",
                "key_scope": a_key(key).scope,
                "key_value": a_key(key).value,
                "lease_token": 1,
                **fields,
            }
        )
        await self.database.transact(
            lambda session: commands.start_saga(session, saga, self.keys, a_key(key), LEASE)
        )
        return saga

    async def start_stale(self, number: int) -> list[str]:
        """Start sagas whose replicas fell silent, the first ones first; return their ids."""
        started = [(await self.start(f"key-{count}")).id for count in range(number)]
        for count, saga_id in enumerate(started):
            await lease_runs_out(self.database, saga_id, ago=number - count)
        return started

    async def write(self, saga: Saga) -> Answer | None:
        return await self.database.transact(
            lambda session: commands.write_saga(session, saga, self.keys, LEASE)
        )

    async def postpone(self, saga: Saga, seconds: float = 60) -> None:
        await self.database.transact(lambda session: commands.postpone_saga(session, saga, seconds))

    async def take_over(self, saga_id: str) -> Saga | None:
        return await self.database.transact(lambda session: commands.take_over(session, saga_id, LEASE))

    async def take_over_stale(self, limit: int = 100) -> Sequence[Saga]:
        return await self.database.transact(lambda session: commands.take_over_stale(session, limit, LEASE))

    async def retry(self, saga_id: str) -> Saga:
        return await self.database.transact(lambda session: commands.retry_saga(session, saga_id, LEASE))

    async def row(self, saga_id: str) -> Saga:
        """The saga as everybody sees it."""
        async with self.database.read() as session:
            return await queries.get_saga(session, saga_id)

    async def answer(self, key: str = "key-1") -> Answer | None:
        """The answer that is kept for the key."""
        kept = await self.keys.find(a_key(key))
        assert kept is not None
        return kept.answer


@pytest.fixture
async def replicas(make_settings: MakeSettings) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas on one database."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            database = Database(make_settings(Settings, db_lock_timeout=2, db_attempts=2))
            stack.push_async_callback(database.close)
            opened.append(Replica(database, Keys("orchestrator", database, IdempotencyKey)))
        yield opened[0], opened[1]


@pytest.fixture
def replica(replicas: tuple[Replica, Replica]) -> Replica:
    """The first of them."""
    return replicas[0]


def columns(saga: Saga) -> dict[str, Any]:
    return {column.key: getattr(saga, column.key) for column in Saga.__mapper__.column_attrs}


# --- start and write ----------------------------------------------------------------------------


async def test_a_saga_is_started_with_its_key_and_its_lease(replica: Replica) -> None:
    saga = await replica.start()

    row = await replica.row(saga.id)
    assert (row.status, row.step, row.attempts, row.lease_token) == ("RUNNING", "validate_customer", 1, 1)
    assert row.lease_until == row.resume_at == row.created_at + timedelta(seconds=LEASE)
    kept = await replica.keys.find(a_key("key-1"))
    assert kept is not None
    assert (kept.resource, kept.answer) == (saga.id, None)


async def test_a_key_starts_one_saga(replicas: tuple[Replica, Replica]) -> None:
    outcomes = await asyncio.gather(*(replica.start() for replica in replicas * 5), return_exceptions=True)

    (started,) = [outcome for outcome in outcomes if isinstance(outcome, Saga)]
    assert [type(outcome) for outcome in outcomes if outcome is not started] == [KeyTaken] * 9
    assert await number_of_sagas(replicas[0]) == 1


async def test_a_saga_that_is_written_is_read_as_it_was(replica: Replica) -> None:
    saga = await replica.start()
    saga.done({"id": 7, "name": "Ünïcode & Søns \N{PACKAGE}"})

    answer = await replica.write(saga)

    row = await replica.row(saga.id)
    assert answer is None
    assert (row.status, row.step, row.customer) == (saga.status, saga.step, saga.customer)
    assert row.finished_at is None
    assert await replica.answer() is None


async def test_every_write_renews_the_lease(replica: Replica) -> None:
    saga = await replica.start()
    await lease_runs_out(replica.database, saga.id)

    await replica.write(saga)

    row = await replica.row(saga.id)
    assert row.lease_until == row.resume_at == row.updated_at + timedelta(seconds=LEASE)
    assert await replica.take_over(saga.id) is None


async def test_the_end_of_a_saga_and_its_answer_are_written_at_once(replica: Replica) -> None:
    saga = await replica.start()
    saga.refused(REFUSAL)

    answer = await replica.write(saga)

    row = await replica.row(saga.id)
    assert (row.status, row.step) == ("FAILED", None)
    assert row.finished_at == row.updated_at
    assert answer is not None
    assert await replica.answer() == answer


async def test_an_answer_that_cannot_be_kept_ends_no_saga(replica: Replica) -> None:
    saga = await replica.start()
    saga.refused(REFUSAL)

    async def work(session: AsyncSession) -> None:
        await commands.write_saga(session, saga, replica.keys, LEASE)
        raise RuntimeError("the database goes away before the commit")

    with pytest.raises(RuntimeError):
        await replica.database.transact(work)

    assert (await replica.row(saga.id)).status == "RUNNING"
    assert await replica.answer() is None


# --- leases -------------------------------------------------------------------------------------


async def test_a_saga_that_is_worked_on_is_not_taken_over(replicas: tuple[Replica, Replica]) -> None:
    worker, other = replicas
    saga = await worker.start()

    assert await other.take_over(saga.id) is None
    assert await other.take_over_stale() == []
    await worker.write(saga)  # it was left alone


async def test_a_saga_whose_lease_ran_out_is_taken_over_once(replicas: tuple[Replica, Replica]) -> None:
    (saga_id,) = await replicas[0].start_stale(1)

    taken = await asyncio.gather(*(replica.take_over(saga_id) for replica in replicas * 5))

    (owned,) = [saga for saga in taken if saga is not None]
    row = await replicas[0].row(saga_id)
    assert columns(owned) | times_of(row) == columns(row)
    assert (row.lease_token, row.attempts) == (2, 1), "its client spends no attempts"
    assert row.lease_until == row.resume_at > row.created_at


def times_of(saga: Saga) -> dict[str, Any]:
    return {name: getattr(saga, name) for name in ("lease_until", "resume_at")}


async def test_a_saga_that_pauses_is_free_for_its_client_and_not_yet_for_a_sweeper(
    replicas: tuple[Replica, Replica],
) -> None:
    worker, other = replicas
    saga = await worker.start()

    await worker.postpone(saga, 60)

    row = await worker.row(saga.id)
    assert row.is_paused
    assert row.resume_at == row.lease_until + timedelta(seconds=60)
    assert await other.take_over_stale() == []
    assert await other.take_over(saga.id) is not None


async def test_a_sweeper_takes_a_saga_whose_pause_is_over(replicas: tuple[Replica, Replica]) -> None:
    worker, other = replicas
    saga = await worker.start()

    await worker.postpone(saga, 0)

    assert [taken.id for taken in await other.take_over_stale()] == [saga.id]


async def test_a_lease_from_before_the_clock_was_set_back_does_not_last(
    replicas: tuple[Replica, Replica],
) -> None:
    worker, other = replicas
    within_reach, beyond_it = await worker.start("key-1"), await worker.start("key-2")
    await lease_runs_out(worker.database, within_reach.id, ago=-LEASE - 60)
    await lease_runs_out(worker.database, beyond_it.id, ago=-3600)

    assert [taken.id for taken in await other.take_over_stale()] == [beyond_it.id]
    with pytest.raises(LeaseLost):
        await worker.write(beyond_it)


@pytest.mark.parametrize(
    "status", [Status.SUCCEEDED, Status.FAILED, Status.COMPENSATED, Status.NEEDS_ATTENTION]
)
async def test_a_saga_that_nobody_may_drive_is_never_taken_over(replica: Replica, status: Status) -> None:
    saga = await replica.start(status=status, step=None)
    await lease_runs_out(replica.database, saga.id)

    assert await replica.take_over(saga.id) is None
    assert await replica.take_over_stale() == []


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPENSATING])
async def test_an_unfinished_saga_is_taken_over_with_all_that_is_known(
    replica: Replica, status: Status
) -> None:
    known: dict[str, Any] = {
        "step": Step.CANCEL_ORDER,
        "customer": {"id": 7},
        "order": {"id": 101},
        "refusal": {"code": "order.expired", "members": {}, "step": "confirm_order"},
        "steps": [{"step": "confirm_order", "outcome": "refused"}],
    }
    saga = await replica.start(status=status, **known)
    await lease_runs_out(replica.database, saga.id)

    (taken,) = await replica.take_over_stale()

    assert {name: getattr(taken, name) for name in known} == known
    assert (taken.status, taken.attempts, taken.lease_token) == (status, 2, 2)


async def test_a_sweeper_takes_the_longest_waiting_first_and_no_more_than_it_can(replica: Replica) -> None:
    started = await replica.start_stale(5)

    taken = [[saga.id for saga in await replica.take_over_stale(limit=2)] for _ in range(4)]

    assert taken == [started[:2], started[2:4], started[4:], []]


async def test_sweepers_at_once_take_each_saga_once(replicas: tuple[Replica, Replica]) -> None:
    started = await replicas[0].start_stale(20)

    rounds = [
        await asyncio.gather(*(replica.take_over_stale(limit=3) for replica in replicas)) for _ in started
    ]

    taken = [saga.id for swept in rounds for sagas in swept for saga in sagas]
    assert sorted(taken) == sorted(started)
    rows = [await replicas[0].row(saga_id) for saga_id in started]
    assert [(row.lease_token, row.attempts) for row in rows] == [(2, 2)] * 20


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_a_sweeper_does_not_wait_for_a_saga_that_another_is_taking(
    replicas: tuple[Replica, Replica],
) -> None:
    one, other = replicas
    first, second = await one.start_stale(2)

    async def work(session: AsyncSession) -> list[str]:
        await commands.take_over(session, first, LEASE)
        return [saga.id for saga in await other.take_over_stale()]

    assert await one.database.transact(work) == [second]


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_who_comes_while_a_saga_is_being_taken_waits_and_goes_away_empty(
    replicas: tuple[Replica, Replica],
) -> None:
    one, other = replicas
    (saga_id,) = await one.start_stale(1)

    taken, second = await while_it_is_done(one, other, commands.take_over, saga_id)

    assert taken is not None
    assert await second is None


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_who_comes_while_a_saga_is_being_retried_waits_and_is_refused(
    replicas: tuple[Replica, Replica],
) -> None:
    one, other = replicas
    saga = await one.start(status=Status.NEEDS_ATTENTION, step=Step.CREATE_ORDER)

    _, second = await while_it_is_done(one, other, commands.retry_saga, saga.id)

    with pytest.raises(SagaNotRetryable):
        await second


async def while_it_is_done(one: Replica, other: Replica, command: Command, saga_id: str) -> tuple[Any, Any]:
    """Let one replica run a command and commit it only once the other has asked for the same."""

    async def run_it(session: AsyncSession) -> Any:
        return await command(session, saga_id, LEASE)

    async def the_other_asked() -> bool:
        return bool(sent)

    async def work(session: AsyncSession) -> tuple[Any, Any]:
        done = await run_it(session)
        second = asyncio.create_task(other.database.transact(run_it))
        await until(the_other_asked)
        return done, second

    with statements_sent(other.database) as sent:
        return await one.database.transact(work)


# --- fencing ------------------------------------------------------------------------------------


async def test_who_lost_the_lease_writes_nothing(replicas: tuple[Replica, Replica]) -> None:
    zombie, owner = replicas
    saga = await zombie.start()
    await lease_runs_out(zombie.database, saga.id)
    await owner.take_over(saga.id)
    before = columns(await owner.row(saga.id))
    saga.done({"id": 7})

    with pytest.raises(LeaseLost):
        await zombie.write(saga)
    with pytest.raises(LeaseLost):
        await zombie.postpone(saga)

    assert columns(await owner.row(saga.id)) == before


async def test_who_lost_the_lease_ends_no_saga_and_keeps_no_answer(
    replicas: tuple[Replica, Replica],
) -> None:
    zombie, owner = replicas
    saga = await zombie.start()
    await lease_runs_out(zombie.database, saga.id)
    await owner.take_over(saga.id)
    saga.refused(REFUSAL)

    with pytest.raises(LeaseLost):
        await zombie.write(saga)

    assert (await owner.row(saga.id)).status == "RUNNING"
    assert await owner.answer() is None


async def test_who_lost_the_lease_does_not_change_the_answer_that_was_given(
    replicas: tuple[Replica, Replica],
) -> None:
    zombie, owner = replicas
    saga = await zombie.start()
    await lease_runs_out(zombie.database, saga.id)
    owned = await owner.take_over(saga.id)
    assert owned is not None
    owned.refused(REFUSAL)
    answer = await owner.write(owned)
    saga.refused({"code": "customer.inactive", "members": {}})

    with pytest.raises(LeaseLost):
        await zombie.write(saga)

    assert await owner.answer() == answer
    assert (await owner.row(saga.id)).refusal == owned.refusal


async def test_who_has_the_lease_writes_on(replicas: tuple[Replica, Replica]) -> None:
    zombie, owner = replicas
    saga = await zombie.start()
    await lease_runs_out(zombie.database, saga.id)
    owned = await owner.take_over(saga.id)
    assert owned is not None

    for snapshot in ({"id": 7}, {"id": 101}):
        owned.done(snapshot)
        await owner.write(owned)

    row = await owner.row(saga.id)
    assert (row.step, row.customer, row.order) == ("confirm_order", {"id": 7}, {"id": 101})


async def test_a_replica_that_was_only_slow_writes_on_while_nobody_took_its_saga(replica: Replica) -> None:
    saga = await replica.start()
    await lease_runs_out(replica.database, saga.id)
    saga.done({"id": 7})

    await replica.write(saga)

    assert (await replica.row(saga.id)).step == "create_order"


# --- retry --------------------------------------------------------------------------------------


async def test_a_retried_saga_is_leased_to_who_retries_it(replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    saga = await one.start(status=Status.NEEDS_ATTENTION, step=Step.CANCEL_ORDER, attempts=21, attention="!")

    retried = await other.retry(saga.id)

    row = await one.row(saga.id)
    assert (row.status, row.step, row.attention) == ("COMPENSATING", "cancel_order", None)
    assert (row.attempts, row.lease_token) == (1, 2)
    assert (retried.status, retried.attempts, retried.lease_token) == (row.status, 1, 2)
    assert await one.take_over(saga.id) is None
    with pytest.raises(LeaseLost):
        await one.write(saga)


async def test_of_two_who_retry_a_saga_at_once_one_does(replicas: tuple[Replica, Replica]) -> None:
    saga = await replicas[0].start(status=Status.NEEDS_ATTENTION, step=Step.CREATE_ORDER)

    outcomes = await asyncio.gather(*(replica.retry(saga.id) for replica in replicas), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Saga", "SagaNotRetryable"]


@pytest.mark.parametrize("status", [status for status in Status if status != Status.NEEDS_ATTENTION])
async def test_only_a_saga_that_needs_attention_can_be_retried(replica: Replica, status: Status) -> None:
    saga = await replica.start(status=status)
    before = columns(await replica.row(saga.id))

    with pytest.raises(SagaNotRetryable):
        await replica.retry(saga.id)

    assert columns(await replica.row(saga.id)) == before


async def test_a_saga_that_does_not_exist_cannot_be_retried(replica: Replica) -> None:
    with pytest.raises(SagaNotFound):
        await replica.retry("0" * 32)


# --- counting -----------------------------------------------------------------------------------


async def test_the_sagas_without_an_answer_are_counted_by_state(replica: Replica) -> None:
    for number, status in enumerate([*Status, Status.RUNNING]):
        await replica.start(f"key-{number}", status=status)

    async with replica.database.read() as session:
        found = await queries.unfinished(session)

    counted = {status: of_status.count for status, of_status in found.items()}
    assert counted == {"RUNNING": 2, "COMPENSATING": 1, "NEEDS_ATTENTION": 1}


async def test_the_age_of_unfinished_sagas_is_that_of_the_oldest_in_each_state(replica: Replica) -> None:
    for number, hours in enumerate([1, 3, 2]):
        saga = await replica.start(f"key-{number}")
        since = dialects.seconds_from_now(-3600 * hours)
        async with replica.database.writers.begin() as connection:
            await connection.execute(update(Saga).where(Saga.id == saga.id).values(created_at=since))

    async with replica.database.read() as session:
        found = await queries.unfinished(session)

    assert found[Status.RUNNING].oldest // 3600 == 3
    assert found[Status.COMPENSATING] == queries.Unfinished(0, 0.0)


async def number_of_sagas(replica: Replica) -> int:
    async with replica.database.read() as session:
        return await session.scalar(select(func.count()).select_from(Saga)) or 0


# --- purge --------------------------------------------------------------------------------------


async def aged(replica: Replica, key: str, *, created: float, finished: float | None, status: Status) -> str:
    """A saga of so many days ago; return its id."""
    saga = await replica.start(key, status=status)
    ages = {"created_at": created, "finished_at": finished}
    times = {
        name: dialects.seconds_from_now(-days * 86_400) for name, days in ages.items() if days is not None
    }
    await replica.database.transact(
        lambda session: session.execute(update(Saga).where(Saga.id == saga.id).values(times))
    )
    return saga.id


async def test_sagas_are_forgotten_in_batches_long_after_their_end(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.commands.PURGE_BATCH", 2)
    ends = (Status.SUCCEEDED, Status.FAILED, Status.COMPENSATED)
    for number in range(5):
        await aged(replica, f"old-{number}", created=99 - number, finished=91, status=ends[number % 3])
    kept = [
        await aged(replica, "young", created=89, finished=89, status=Status.SUCCEEDED),
        await aged(replica, "late", created=400, finished=1, status=Status.COMPENSATED),
        await aged(replica, "running", created=400, finished=None, status=Status.RUNNING),
        await aged(replica, "stuck", created=400, finished=None, status=Status.NEEDS_ATTENTION),
        await aged(replica, "undoing", created=400, finished=None, status=Status.COMPENSATING),
    ]

    with statements_sent(replica.database) as sent:
        counts = [await commands.purge_sagas(replica.database, 90) for _ in range(2)]

    assert counts == [5, 0]
    assert len([statement for statement in sent if statement.startswith("DELETE")]) == 3
    async with replica.database.read() as session:
        assert set(await session.scalars(select(Saga.id))) == set(kept)


async def test_replicas_that_purge_at_the_same_time_do_not_hinder_one_another(
    replicas: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.commands.PURGE_BATCH", 3)
    for number in range(20):
        await aged(replicas[0], f"old-{number}", created=91, finished=91, status=Status.FAILED)

    counts = await asyncio.gather(*(commands.purge_sagas(one.database, 90) for one in replicas * 2))

    assert sum(counts) == 20
    assert await number_of_sagas(replicas[0]) == 0
