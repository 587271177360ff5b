"""What must hold after every run, whatever was broken, found in the databases and in what clients saw.

Each invariant takes the Evidence and yields what contradicts it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from chassis.database import Database
from orchestrator.models import UNFINISHED, IdempotencyKey, Saga
from orchestrator.models import Status as SagaStatus
from orders.models import Order
from orders.models import Status as OrderStatus
from orders.reconcile import find_discrepancies
from tests.faults.run import Call, Violation
from tests.faults.world import LEASE_SECONDS

REFUSED = (SagaStatus.FAILED, SagaStatus.COMPENSATED)
GRACE_SECONDS = 10
"""How much longer than its lease a saga may take once everything runs again."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run left: calls with what their clients saw, and sagas and orders by their keys.

    `started` says how many sagas a key has, `kept` which answer the database has for it; `healed_at`
    is the moment since when everything runs again.
    """

    calls: Sequence[Call]
    sagas: dict[str, Saga]
    started: Counter[str]
    orders: dict[str, list[Order]]
    kept: dict[str, tuple[int | None, bytes | None]]
    discrepancies: Sequence[str]
    healed_at: float
    tolerated: frozenset[int] = frozenset()


async def gather(
    name: str,
    calls: Sequence[Call],
    sagas: Database,
    orders: Database,
    *,
    healed_at: float,
    tolerated: frozenset[int] = frozenset(),
) -> Evidence:
    """Read what the databases have of the run with this name."""
    pattern = f"{name}-%"
    async with sagas.read() as session:
        found = (await session.scalars(select(Saga).where(Saga.correlation_id.like(pattern)))).all()
        values = [saga.key_value for saga in found]
        rows = (await session.scalars(select(IdempotencyKey).where(IdempotencyKey.key.in_(values)))).all()
    async with orders.read() as session:
        made = (await session.scalars(select(Order).where(Order.correlation_id.like(pattern)))).all()
    by_key: dict[str, list[Order]] = defaultdict(list)
    for order in made:
        by_key[order.correlation_id].append(order)
    return Evidence(
        calls,
        {saga.correlation_id: saga for saga in found},
        Counter(saga.correlation_id for saga in found),
        dict(by_key),
        {row.key.decode(): (row.status, row.body) for row in rows},
        await find_discrepancies(orders),
        healed_at,
        tolerated,
    )


def violations(evidence: Evidence) -> list[Violation]:
    """Everything that contradicts an invariant."""
    return [Violation(check.__name__, found) for check in INVARIANTS for found in check(evidence)]


# --- the invariants -----------------------------------------------------------------------------


def one_order_per_key(evidence: Evidence) -> Iterator[str]:
    """However often a request was sent and whoever worked on it, it made at most one order."""
    for key, orders in evidence.orders.items():
        if len(orders) > 1:
            yield f"{key} made {len(orders)} orders: {', '.join(order.order_number for order in orders)}"
    yield from (f"{key} started {many} sagas" for key, many in evidence.started.items() if many > 1)


def succeeded_means_confirmed(evidence: Evidence) -> Iterator[str]:
    """A saga that succeeded has a confirmed order, and a confirmed order has a saga that succeeded."""
    for key, saga in evidence.sagas.items():
        if saga.status == SagaStatus.SUCCEEDED:
            confirmed = [
                order.id for order in evidence.orders.get(key, ()) if order.status == OrderStatus.CONFIRMED
            ]
            if saga.order_id not in confirmed:
                yield f"{key} succeeded with order {saga.order_id}; confirmed for it are {confirmed}"
    for key, orders in evidence.orders.items():
        its = _status(evidence, key)
        for order in orders:
            if order.status == OrderStatus.CONFIRMED and its != SagaStatus.SUCCEEDED:
                yield f"{key}: order {order.id} is confirmed, its saga is {its}"


def failed_leaves_nothing(evidence: Evidence) -> Iterator[str]:
    """No order is left of a saga that failed, none waits for a saga that is over or never was."""
    for key, orders in evidence.orders.items():
        its = _status(evidence, key)
        if its in (*UNFINISHED, SagaStatus.NEEDS_ATTENTION):
            continue  # every_saga_ends has it
        for order in orders:
            if order.status == OrderStatus.CREATED:
                yield f"{key}: order {order.id} waits, its saga is {its}"


def reconcile_finds_nothing(evidence: Evidence) -> Iterator[str]:
    """Stock, reservations and totals are what the ledger says: no unit was sold twice or got lost."""
    yield from evidence.discrepancies


def nothing_acknowledged_is_missing(evidence: Evidence) -> Iterator[str]:
    """What a client was told is in the databases."""
    for call in evidence.calls:
        saga = evidence.sagas.get(call.key)
        if call.status is not None and call.body.startswith(b"{") and "saga_id" in call.json:
            told = call.json["saga_id"]
            if saga is None or saga.id != told:
                yield f"{call.key} was told of saga {told}; there is {saga.id if saga else 'none'}"
        if call.status == 201:
            order = call.json["data"]["order"]
            there = {
                (found.id, found.status, found.total_cents) for found in evidence.orders.get(call.key, ())
            }
            if (order["id"], OrderStatus.CONFIRMED, order["total_cents"]) not in there:
                yield f"{call.key} was told of order {order['id']}; there is {sorted(there) or 'none'}"
        elif call.is_final and (its := _status(evidence, call.key)) not in REFUSED:
            yield f"{call.key} was refused ({call.status}), its saga is {its}"


def every_saga_ends(evidence: Evidence) -> Iterator[str]:
    """A saga ends within its lease + 10 s once all runs again, or says why it needs an operator."""
    latest = evidence.healed_at + LEASE_SECONDS + GRACE_SECONDS
    for key, saga in evidence.sagas.items():
        if saga.status in UNFINISHED:
            yield f"{key} is {saga.status} at {saga.step} after {saga.attempts} attempts"
        elif saga.status == SagaStatus.NEEDS_ATTENTION and not saga.attention:
            yield f"{key} needs attention without a reason"
        elif saga.finished_at is not None and saga.finished_at.timestamp() > latest:
            yield f"{key} ended {saga.finished_at.timestamp() - evidence.healed_at:.1f} s after all ran again"


def same_key_same_bytes(evidence: Evidence) -> Iterator[str]:
    """Every final answer of a key is the one that was kept for it; a saga that is over has kept one."""
    for call in evidence.calls:
        if call.is_final and evidence.kept.get(call.key) != (call.status, call.body):
            status, _ = evidence.kept.get(call.key, ("nothing", b""))
            yield f"{call.key} was answered {call.status} {call.body[:80]!r}, kept is {status}"
    for key, saga in evidence.sagas.items():
        status, body = evidence.kept.get(key, (None, None))
        if saga.is_over and (status is None or body is None):
            yield f"{key} is {saga.status} and has no answer"


def clients_are_told_what_to_do(evidence: Evidence) -> Iterator[str]:
    """Who got no final answer got none at all, or was told when to ask again."""
    for call in evidence.calls:
        if call.status is None or call.is_final or call.status in evidence.tolerated:
            continue
        if call.status not in (409, 429, 503) or call.retry_after is None:
            yield f"{call.key} was answered {call.status} {call.body[:200]!r}, Retry-After {call.retry_after}"


def _status(evidence: Evidence, key: str) -> str:
    saga = evidence.sagas.get(key)
    return saga.status if saga is not None else "missing"


Invariant = Callable[[Evidence], Iterator[str]]
INVARIANTS: tuple[Invariant, ...] = (
    one_order_per_key,
    succeeded_means_confirmed,
    failed_leaves_nothing,
    reconcile_finds_nothing,
    nothing_acknowledged_is_missing,
    every_saga_ends,
    same_key_same_bytes,
    clients_are_told_what_to_do,
)
