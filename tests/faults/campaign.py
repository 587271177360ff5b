"""Runs cases one after the other, each followed by recovery and by every invariant.

A scenario is a module in `scenarios/` with a tuple CASES. A case breaks something while clients are at
work and returns; what it broke may stay broken. Then everything is healed, every saga is waited for,
every key that started one is asked for its answer once more, and the invariants are checked.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random
from secrets import token_hex
from time import monotonic, time

from dev.mariadb import Server
from orchestrator.models import UNFINISHED
from tests.faults.invariants import GRACE_SECONDS, Evidence, gather, violations
from tests.faults.run import Run, ScenarioFailed, Violation
from tests.faults.world import LEASE_SECONDS, World, open_world

RUN_SECONDS = 120
"""No case takes longer, or it hangs."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is broken in one way; `short` says that it belongs to `make test`, too."""

    scenario: str
    name: str
    act: Callable[[Run], Awaitable[None]]
    short: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run; `recoveries` are seconds from the last fault to the end of each saga it hit."""

    case: Case
    run: str
    seconds: float
    orders: int
    sagas: int
    kills: int
    recoveries: list[float]
    needs_attention: int
    violations: list[Violation]


@dataclass
class Campaign:
    """The cases of a seed, in its order: each once, then, unless `once`, again while there is time."""

    cases: Sequence[Case]
    seed: int
    seconds: float
    once: bool = False
    results: list[Result] = field(default_factory=list)
    left_out: list[Case] = field(default_factory=list)
    """Cases for which no time was left."""

    async def run(self, server: Server, folder: Path, show: Callable[[Case, Result | None], None]) -> None:
        """Run the cases; show each when it begins and when it has its result."""
        order = self._order()
        worlds = 0
        deadline = inf
        while not self._over(deadline):
            worlds += 1
            async with open_world(server, folder / f"world-{worlds}", f"faults_{token_hex(4)}") as world:
                deadline = min(deadline, monotonic() + self.seconds)
                while not self._over(deadline):
                    case = next(order)
                    show(case, None)
                    result = await self._one(world, case, len(self.results) + 1)
                    self.results.append(result)
                    show(case, result)
                    if result.violations:
                        break  # what is wrong now must not be found again in the next run
        ran = {result.case for result in self.results}
        self.left_out = [case for case in self.cases if case not in ran]

    def _over(self, deadline: float) -> bool:
        return monotonic() >= deadline or (self.once and len(self.results) == len(self.cases))

    def _order(self) -> Iterator[Case]:
        shuffled = Random(self.seed)  # noqa: S311 - a seed that can be given again is the point
        while True:
            yield from shuffled.sample(self.cases, len(self.cases))

    async def _one(self, world: World, case: Case, number: int) -> Result:
        started, kills = monotonic(), world.kills
        run = Run(f"s{self.seed}-r{number}", world, Random(f"{self.seed} {number}"))  # noqa: S311 - as above
        evidence = None
        try:
            async with asyncio.timeout(RUN_SECONDS):
                try:
                    await case.act(run)
                except ScenarioFailed as failed:
                    run.violated("the_case_happened", str(failed))
                await run.world.heal()
                run.healed_at = time()
                evidence = await settled(run)
                run.violations += violations(evidence)
        except TimeoutError:
            run.violated("the_run_ended", f"it hangs after {RUN_SECONDS} s")
        except Exception:  # noqa: BLE001 - whatever it is, the campaign is red and goes on
            run.violated("the_run_ended", traceback.format_exc(limit=-5))
        finally:
            await run.opened.aclose()
        return Result(
            case,
            run.name,
            monotonic() - started,
            sum(map(len, evidence.orders.values())) if evidence else 0,
            len(evidence.sagas) if evidence else 0,
            world.kills - kills,
            recoveries(run, evidence) if evidence else [],
            sum(saga.status == "NEEDS_ATTENTION" for saga in evidence.sagas.values()) if evidence else 0,
            run.violations,
        )


async def settled(run: Run) -> Evidence:
    """The evidence, once every saga of the run is over or late; each key is asked for its answer again."""
    async with run.world.databases() as (sagas, orders):

        async def look() -> Evidence:
            return await gather(
                run.name, run.calls, sagas, orders, healed_at=run.healed_at, tolerated=run.tolerated
            )

        latest = run.healed_at + LEASE_SECONDS + GRACE_SECONDS
        evidence = await look()
        while time() < latest and any(saga.status in UNFINISHED for saga in evidence.sagas.values()):
            await asyncio.sleep(0.1)
            evidence = await look()
        again = [key for key, saga in evidence.sagas.items() if saga.is_over and key in run.bodies]
        await asyncio.gather(*(run.ask(run.bodies[key], key) for key in again))
        return await look()


def recoveries(run: Run, evidence: Evidence) -> list[float]:
    """For each saga that was under way at a fault, the seconds from the last such fault to its end."""
    found = []
    for saga in evidence.sagas.values():
        if saga.finished_at is None:
            continue
        began, ended = saga.created_at.timestamp(), saga.finished_at.timestamp()
        hit = [fault for fault in run.faults if began <= fault <= ended]
        if hit:
            found.append(ended - max(hit))
    return found
