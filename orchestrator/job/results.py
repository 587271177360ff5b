"""What became of orders."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum

from chassis.http import View

LISTED = 10  # of the orders of each kind that did not succeed


class Status(StrEnum):
    """Where an order ended: `refused` is final, `unfinished` can be run again."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    INVALID = "invalid"
    UNFINISHED = "unfinished"


class Result(View):
    """The line that reports an order."""

    line: int
    reference: str | None
    status: Status
    order_number: str | None = None
    order_id: int | None = None
    saga_id: str | None = None
    total_cents: int | None = None
    code: str | None = None
    detail: str | None = None
    attempts: int = 0
    replayed: bool = False


class Totals:
    """How many orders came to which end, and the first ones of those that did not succeed."""

    def __init__(self) -> None:
        self._counts: Counter[Status] = Counter()
        self._replayed = 0
        self._listed: defaultdict[Status, list[Result]] = defaultdict(list)

    def add(self, result: Result) -> None:
        """Count one more."""
        self._counts[result.status] += 1
        self._replayed += result.replayed
        if result.status is not Status.SUCCEEDED and len(self._listed[result.status]) < LISTED:
            self._listed[result.status].append(result)

    @property
    def orders(self) -> int:
        """How many there are."""
        return self._counts.total()

    @property
    def all_succeeded(self) -> bool:
        """Whether none came to another end."""
        return self.orders == self._counts[Status.SUCCEEDED]

    def __str__(self) -> str:
        parts = [f"{self._counts[status]:,} {status}" for status in Status if self._counts[status]]
        if self._replayed:
            parts.append(f"{self._replayed:,} of them replayed")
        return f"{self.orders:,} order(s){': ' if parts else ''}{', '.join(parts)}"

    def summary(self) -> Iterator[str]:
        """What there is to say of the orders that did not succeed."""
        for status, listed in self._listed.items():
            for result in listed:
                name = "" if result.reference is None else f" ({result.reference})"
                yield f"  line {result.line}{name} {status}: {result.detail}"
            if (more := self._counts[status] - len(listed)) > 0:
                yield f"  and {more:,} more {status}"
        if self._counts[Status.UNFINISHED]:
            yield "Run the same file again: what is done is not repeated."
