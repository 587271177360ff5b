"""An orchestrator stands still past its leases, a second one ends its sagas, then the first one goes on.

The zombie still thinks that the sagas are its own. It must write nothing: not to the sagas, not to the
answers, and what it asks of orders is what was done already.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select

from chassis.database import Database
from chassis.failpoints import Failpoint
from dev.stack import Service
from orchestrator import failpoints
from orchestrator.models import UNFINISHED, IdempotencyKey, Saga, Step
from orders.models import Order
from tests.faults.campaign import Case
from tests.faults.run import Run, ScenarioFailed
from tests.faults.world import LEASE_SECONDS

CLIENTS = 4
SCENARIO = "zombie"
INVARIANT = "the_zombie_writes_nothing"
TAKEN_OVER_SECONDS = LEASE_SECONDS + 15
NOTICED = ("saga was taken over by another replica", "saga cannot be written, the sweeper goes on")
"""What a zombie logs when it finds out."""


def stop(place: Failpoint | None) -> Callable[[Run], Awaitable[None]]:
    """Let it stand still at this place, or anywhere."""

    async def act(run: Run) -> None:
        first, second = run.world.services.orchestrator, await run.world.replica()
        if place is not None:
            await run.world.restart(first, FAILPOINTS=f"{place.name}=stop#{run.random.randint(1, 3)}")
        noticed_before = len(_noticed(first))
        clients = await run.clients(CLIENTS, await run.world.basket(), at=first)
        if place is None:
            await _any_saga(run)
            first.pause()
        await _stands_still(first)
        run.fault()
        sagas = await _taken_over(run)
        before = await _rows(run, sagas)
        first.resume()
        if place is not None:
            try:
                await _until(lambda: len(_noticed(first)) > noticed_before, "it never noticed that it is one")
            except ScenarioFailed as failed:
                run.violated(INVARIANT, str(failed))
        await clients
        for table, rows in (await _rows(run, sagas)).items():
            for old, new in zip(before[table], rows, strict=True):
                if old != new:
                    run.violated(INVARIANT, f"{table}: {old} became {new}")
        await second.terminate()

    return act


async def _any_saga(run: Run) -> None:
    async with run.world.databases() as (database, _):
        await _until(lambda: _sagas(database, run.name), "no saga was started")
    await asyncio.sleep(run.random.uniform(0, 0.05))


async def _stands_still(service: Service) -> None:
    process = service.process
    if process is None:
        raise ScenarioFailed("the orchestrator does not run")
    stat = Path(f"/proc/{process.pid}/stat")
    await _until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it never stood still")


async def _taken_over(run: Run) -> list[str]:
    """The ids of the sagas of this run, once the second orchestrator has ended all that there are."""
    async with run.world.databases() as (database, _):

        async def ended() -> Sequence[Saga]:
            sagas = await _sagas(database, run.name)
            return sagas if all(saga.status not in UNFINISHED for saga in sagas) else ()

        return [saga.id for saga in await _until(ended, "the sagas were not taken over")]


async def _sagas(database: Database, name: str) -> Sequence[Saga]:
    async with database.read() as session:
        return (await session.scalars(select(Saga).where(Saga.correlation_id.like(f"{name}-%")))).all()


async def _rows(run: Run, sagas: list[str]) -> dict[str, list[Any]]:
    """Everything the databases have of these sagas, with their answers and orders."""
    keys: Table = IdempotencyKey.__table__  # type: ignore[assignment]  # what a mapped class has
    table: Table = Saga.__table__  # type: ignore[assignment]  # as above
    made: Table = Order.__table__  # type: ignore[assignment]  # as above
    async with run.world.databases() as (database, orders), database.read() as session:
        found = (await session.execute(select(table).where(table.c.id.in_(sagas)).order_by(table.c.id))).all()
        answers = select(keys).where(keys.c.resource.in_(sagas)).order_by(keys.c.key)
        correlation_ids = [row.correlation_id for row in found]
        async with orders.read() as stock:
            of_sagas = select(made).where(made.c.correlation_id.in_(correlation_ids)).order_by(made.c.id)
            return {
                "sagas": list(found),
                "answers": list((await session.execute(answers)).all()),
                "orders": list((await stock.execute(of_sagas)).all()),
            }


def _noticed(service: Service) -> list[str]:
    lines = service.log_file.read_text(errors="replace").splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    return [event for event in events if event in NOTICED]


async def _until(check: Callable[[], Any], otherwise: str) -> Any:
    """Ask until the answer is yes, and return it.

    Raises:
        ScenarioFailed: it never is.

    """
    try:
        async with asyncio.timeout(TAKEN_OVER_SECONDS):
            while True:
                found = check()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ScenarioFailed(otherwise) from None


PLACES = (
    failpoints.BEFORE[Step.CREATE_ORDER],
    failpoints.UNREAD[Step.CREATE_ORDER],
    failpoints.RECORDED[Step.CREATE_ORDER],
    failpoints.UNREAD[Step.CONFIRM_ORDER],
    failpoints.SAGA_ENDED,
)
CASES = (
    Case(SCENARIO, "stopped anywhere", stop(None)),
    *(
        Case(
            SCENARIO,
            f"stopped at {place.name}",
            stop(place),
            short=place == failpoints.UNREAD[Step.CREATE_ORDER],
        )
        for place in PLACES
    ),
)
