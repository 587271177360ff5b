"""SIGKILL at each failpoint, with clients that repeat their request and clients that go away.

The process that is killed is started again without its failpoint; the sweeper does the rest.
"""

from collections.abc import Awaitable, Callable, Iterator

from chassis.failpoints import Failpoint
from orchestrator import failpoints as orchestrator
from orchestrator.models import Step
from orders import failpoints as orders
from tests.faults.campaign import Case
from tests.faults.run import Run

CLIENTS = 6
SCENARIO = "failpoints"
SLOW_CONFIRMATION = f"{orchestrator.BEFORE[Step.CONFIRM_ORDER].name}=wait(0.7)"
SHORT_RESERVATION = "0.3"
"""Seconds: with the line above, an order expires before its confirmation, which is compensated then."""


def kill(service: str, place: Failpoint, *, doomed: bool) -> Callable[[Run], Awaitable[None]]:
    """Let the service die at this place; with `doomed`, orders expire before their confirmation."""

    async def act(run: Run) -> None:
        world = run.world
        plans = {"orchestrator": [SLOW_CONFIRMATION] if doomed else [], "orders": []}
        plans[service].append(f"{place.name}=kill#{run.random.randint(1, 4)}")
        body = await world.basket()
        if doomed or plans["orders"]:
            ttl = {"RESERVATION_TTL": SHORT_RESERVATION} if doomed else {}
            await world.restart(world.services.orders, FAILPOINTS=",".join(plans["orders"]), **ttl)
        if plans["orchestrator"]:
            await world.restart(world.services.orchestrator, FAILPOINTS=",".join(plans["orchestrator"]))
        clients = await run.clients(CLIENTS, body)
        await run.died(getattr(world.services, service))
        await world.heal()
        await clients

    return act


def kill_sweeper() -> Callable[[Run], Awaitable[None]]:
    """Let a sweeper die with the sagas of a replica that died before it."""

    async def act(run: Run) -> None:
        target = run.world.services.orchestrator
        step = run.random.choice(list(Step)[:3])
        await run.world.restart(target, FAILPOINTS=f"{orchestrator.UNREAD[step].name}=kill#3")
        clients = await run.clients(CLIENTS, await run.world.basket())
        await run.died(target)
        await run.world.restart(target, FAILPOINTS=f"{orchestrator.SWEEPER_LEASED.name}=kill")
        await run.died(target)
        await run.world.heal()
        await clients

    return act


def fail(place: Failpoint) -> Callable[[Run], Awaitable[None]]:
    """Let the orchestrator fail there in a way that nobody foresees."""

    async def act(run: Run) -> None:
        run.tolerated = frozenset({500})
        target = run.world.services.orchestrator
        await run.world.restart(target, FAILPOINTS=f"{place.name}=raise#{run.random.randint(1, CLIENTS)}")
        clients = await run.clients(CLIENTS, await run.world.basket())
        run.fault()
        await clients

    return act


def _cases() -> Iterator[Case]:
    places: list[tuple[str, Failpoint, bool]] = [
        ("orchestrator", orchestrator.REQUEST_PARSED, False),
        ("orchestrator", orchestrator.SAGA_COMMITTED, False),
    ]
    for step in Step:
        doomed = step == Step.CANCEL_ORDER
        around = (orchestrator.BEFORE, orchestrator.UNREAD, orchestrator.RECORDED)
        places += [("orchestrator", when[step], doomed) for when in around]
    places += [
        ("orchestrator", place, False) for place in (orchestrator.SAGA_ENDED, orchestrator.SAGA_ANSWERED)
    ]
    places += [("orders", place, outcome == "canceled") for outcome, place in orders.COMMITTED.items()]
    for service, place, doomed in places:
        yield Case(SCENARIO, f"kill at {place.name}", kill(service, place, doomed=doomed), place in SHORT)
    yield Case(SCENARIO, f"kill at {orchestrator.SWEEPER_LEASED.name}", kill_sweeper())
    for place in (
        orchestrator.SAGA_COMMITTED,
        orchestrator.UNREAD[Step.CREATE_ORDER],
        orchestrator.SAGA_ENDED,
        orchestrator.RECORDED[Step.CONFIRM_ORDER],
    ):
        yield Case(SCENARIO, f"raise at {place.name}", fail(place))


SHORT = (
    orchestrator.UNREAD[Step.CANCEL_ORDER],
    orders.COMMITTED["confirmed"],
)
CASES = tuple(_cases())
