"""Twins in one process share one run of the work: a flight.

The first request with a key starts a task of its own and waits for it; twins that come before it ends
wait for the same task. They hold no connection, and whoever goes away harms nobody: nothing that
waits for the task can cancel it.

A failure is shared, too. A twin is the same request at the same time, so what is true for the first
is true for it: were each to try in its turn, the last of a hundred twins would wait until a hundred
attempts at a peer that is down had timed out. The next one to come, a moment later, tries anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from chassis.errors import KeyInProgress
from chassis.idempotency.keys import Key

HELD_AFTER_SECONDS = 0.2
"""An insert of the key that takes longer waits for a request in another process."""

T = TypeVar("T")


class Flight(Generic[T]):
    """One run of the work for a key."""

    def __init__(self, work: "Callable[[Flight[T]], Awaitable[T]]") -> None:
        loop = asyncio.get_running_loop()
        self._held: asyncio.Future[None] = loop.create_future()
        self._claimed: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[T] = loop.create_task(self._run(work))

    async def _run(self, work: "Callable[[Flight[T]], Awaitable[T]]") -> T:
        return await work(self)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Around the insert of the key: while it takes long, the first one may be a twin after all."""
        timer = asyncio.get_running_loop().call_later(HELD_AFTER_SECONDS, _set, self._held)
        try:
            yield
        finally:
            timer.cancel()
        _set(self._claimed)

    async def end(self, patience: float) -> T:
        """Wait for the end of the work.

        Raises:
            KeyInProgress: it did not end within `patience` seconds.

        """
        await asyncio.wait({self.task}, timeout=patience)
        return self._result()

    async def end_of_own(self, patience: float | None) -> T:
        """Wait for the end of one's own work, as long as that takes.

        With `patience`, only so many seconds while somebody else may have the key.

        Raises:
            KeyInProgress: nobody knows yet whether somebody else has.

        """
        if patience is not None:
            await self._ended_or(self._held)
            await self._ended_or(self._claimed, patience)
        if patience is None or self._claimed.done():
            await asyncio.wait({self.task})
        return self._result()

    def _result(self) -> T:
        if not self.task.done() or self.task.cancelled():
            raise in_progress()
        return self.task.result()

    async def _ended_or(self, event: "asyncio.Future[None]", patience: float | None = None) -> None:
        ends: set[asyncio.Future[Any]] = {self.task, event}
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)


def _set(event: "asyncio.Future[None]") -> None:
    if not event.done():
        event.set_result(None)


class Flights:
    """The flights of one process. Each leaves when its work ends, so there are as many as there is work."""

    def __init__(self) -> None:
        self._flights: dict[Key, Flight[Any]] = {}
        self._first: dict[tuple[bytes, bytes], Key] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    def is_of_another(self, key: Key) -> bool:
        """Whether another request with this key began earlier and has not ended."""
        return self._first.get((key.scope, key.value), key) != key

    async def share(
        self,
        key: Key,
        work: Callable[[Flight[T]], Awaitable[T]],
        patience: float,
        stated: float | None = None,
    ) -> tuple[T, bool]:
        """Begin the work for this key, or attach to the one that runs; tell whether it was another's.

        A twin waits for `patience` seconds. The first one waits for its work; if its client `stated` how
        long, only so long while the key may be another's.

        Raises:
            KeyInProgress: the work did not end in that time, and is or may be another's.

        """
        if (flight := self._flights.get(key)) is not None:
            return await flight.end(patience), True
        flight = self._flights[key] = Flight(work)
        self._first.setdefault((key.scope, key.value), key)
        flight.task.add_done_callback(lambda _: self._ended(key))
        return await flight.end_of_own(stated), False

    def _ended(self, key: Key) -> None:
        del self._flights[key]
        if self._first.get((key.scope, key.value)) == key:
            del self._first[key.scope, key.value]

    def close(self) -> None:
        """Give up what has not begun its transaction; one that has is awaited by the database's `close`."""
        for flight in self._flights.values():
            flight.task.cancel()


def in_progress() -> KeyInProgress:
    """What a twin is told that waited long enough."""
    return KeyInProgress("The first request with this key is still running; ask again in a moment.")
