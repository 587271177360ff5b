"""How fast one principal may call, and on how many requests a process works at once.

Both are counted by each process for itself: they protect it, they sell nothing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from chassis.auth.errors import AtCapacity, RateExceeded

MAX_PRINCIPALS = 10_000
"""Principals that are remembered; the one that was silent for the longest time is forgotten first."""


class RateLimit:
    """So many requests a second for each principal, and so many at one go after a silence.

    The generic cell rate algorithm: of each principal, one number is known, the moment from which it
    has used up nothing.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._each = 1 / per_second
        self._ahead = self._each * (burst - 1)
        self._clear_at: dict[str, float] = {}

    def take(self, name: str) -> None:
        """Count a request.

        Raises:
            RateExceeded: it is one too many.

        """
        now = monotonic()
        clear_at = max(self._clear_at.pop(name, now), now)
        wait = clear_at - now - self._ahead
        self._clear_at[name] = clear_at if wait > 0 else clear_at + self._each  # the last one in the order
        if len(self._clear_at) > MAX_PRINCIPALS:
            del self._clear_at[next(iter(self._clear_at))]
        if wait > 0:
            seconds = math.ceil(wait)
            raise RateExceeded(f"Try again in {seconds} s.", headers={"Retry-After": str(seconds)})


class Capacity:
    """At most `limit` requests at once; None sets no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._active = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count the request while the block runs.

        Raises:
            AtCapacity: there is no room for it.

        """
        if self._limit is not None and self._active >= self._limit:
            raise AtCapacity(f"The service works on {self._limit} requests already; try again in a moment.")
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
