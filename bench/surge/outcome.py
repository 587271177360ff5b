"""What is worth comparing of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.surge.world import Case, Moment

LATE = 1.0
"""Seconds within which 99 % of the main jobs are to be answered, by the promise (docs/runbooks)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds count from the beginning of the surge, `back` from its end; None is never.

    `first` is when more pods are ready than before, `keeps_up` when as much is finished as arrives,
    `in_time` when answers take less than a second again. `asked_again` are orders whose clients got 503,
    `most` and `back` are about the pods of all services together.
    """

    first: float | None
    keeps_up: float | None
    in_time: float | None
    longest: float
    asked_again: float
    most: int
    back: float | None


def outcome(case: Case, moments: Sequence[Moment], begins: float, ends: float) -> Outcome:
    """Look at a run whose surge lies between these seconds."""
    fewest = sum(one.minimum for one in case.scaling.values())

    def pods(moment: Moment) -> int:
        return sum(moment.pods.values())

    surge = [moment for moment in moments if moment.at >= begins]
    slowest = max(surge, key=lambda moment: moment.latency)

    def since(start: float, after: float, holds: Callable[[Moment], bool]) -> float | None:
        return next((moment.at - start for moment in moments if moment.at >= after and holds(moment)), None)

    return Outcome(
        first=since(begins, begins, lambda moment: pods(moment) > fewest),
        keeps_up=since(begins, begins, lambda moment: moment.finished >= 0.99 * moment.arriving),
        in_time=since(begins, slowest.at, lambda moment: moment.latency < LATE),
        longest=slowest.latency,
        asked_again=sum(moment.arriving for moment in surge if moment.latency > case.shed),
        most=max(pods(moment) for moment in surge),
        back=since(ends, ends, lambda moment: pods(moment) == fewest),
    )
