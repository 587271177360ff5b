"""All the ways in which the statements of two transactions can follow one another.

An actor stops before each of its statements, COMMIT and ROLLBACK included, until it is its turn. `Stage.play`
lets the actors take turns as a schedule says, and `Stage.every_schedule` plays all schedules there are: first
the one in which the first actor goes on whenever it can, then it goes back to the last moment where the other
one could have gone instead, until no such moment is left. An actor that waits for a lock has no turn until it
has the lock. That it waits is not guessed from how long it takes: InnoDB says so.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import Connection

from chassis.database import Database

Work = Callable[[], Awaitable[Any]]
LOOK_SECONDS = 0.003
PATIENCE_SECONDS = 60


class Actor:
    """One connection's side of a play; `statements` are those that it sent in the last one, in order.

    The database must have this one connection only.
    """

    def __init__(self, name: str, database: Database, connection_id: int) -> None:
        self.name = name
        self.database = database
        self.connection_id = connection_id
        self.statements: list[str] = []
        self.waits = False
        self._task: asyncio.Future[Any] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._stands: asyncio.Future[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it stands before a statement."""
        return self._turn is not None

    @property
    def done(self) -> bool:
        return self._task is not None and self._task.done()

    @property
    def outcome(self) -> Any:
        """What its work returned."""
        assert self._task is not None
        return self._task.result()

    def start(self, work: Work) -> None:
        self.statements.clear()
        self._stands = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(work())

    def go_on(self) -> None:
        """Let it send the statement before which it stands."""
        assert self._turn is not None
        turn, self._turn = self._turn, None
        self._stands = turn.get_loop().create_future()
        turn.set_result(None)

    async def moved(self) -> bool:
        """Wait a moment for its next statement or its end; tell whether it came."""
        assert self._task is not None
        assert self._stands is not None
        either = (self._task, self._stands)
        done, _ = await asyncio.wait(either, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Let it stop before its statements as long as the block lasts."""
        engine = self.database.writers.sync_engine
        hooks: dict[str, Callable[..., None]] = {
            "before_cursor_execute": lambda connection, _cursor, sql, *_: self._stop(connection, sql),
            "commit": lambda connection: self._stop(connection, "COMMIT"),
            "rollback": lambda connection: self._stop(connection, "ROLLBACK"),
        }
        for name, hook in hooks.items():
            event.listen(engine, name, hook)
        try:
            yield
        finally:
            for name, hook in hooks.items():
                event.remove(engine, name, hook)

    def _stop(self, connection: Connection, statement: str) -> None:
        driver: Any = connection.connection.dbapi_connection
        driver.run_async(lambda _: self._wait(statement))

    async def _wait(self, statement: str) -> None:
        self.statements.append(" ".join(statement.split()))
        assert self._stands is not None
        self._turn = self._stands.get_loop().create_future()
        self._stands.set_result(None)
        await self._turn


@dataclass(slots=True)
class Choice:
    """A moment at which someone had to go on: who could have, and which of them did."""

    ready: tuple[str, ...]
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Play:
    """A schedule, as the names of those who went on one after the other, and what each of them returned."""

    schedule: str
    outcomes: tuple[Any, ...]


class Stage:
    """Where actors meet; `witness` is a database whose connections are none of theirs."""

    def __init__(self, actors: Sequence[Actor], witness: Database) -> None:
        self.actors = actors
        self._witness = witness

    async def every_schedule(self, prepare: Callable[[], Awaitable[Sequence[Work]]]) -> AsyncIterator[Play]:
        """Play all schedules there are, on works that are prepared anew for each of them."""
        choices: list[Choice] = []
        while True:
            yield await self.play(await prepare(), choices)
            while choices and choices[-1].taken == len(choices[-1].ready) - 1:
                choices.pop()
            if not choices:
                return
            choices[-1].taken += 1

    async def play(self, works: Sequence[Work], choices: list[Choice]) -> Play:
        """Let the actors go on as chosen, then the first who can; append what that was to `choices`."""
        playing = self.actors[: len(works)]
        moments = iter(tuple(choices))
        with ExitStack() as stack:
            for actor, work in zip(playing, works, strict=True):
                stack.enter_context(actor.stopping())
                actor.start(work)
            await self._settle(playing)
            while not all(actor.done for actor in playing):
                ready = {actor.name: actor for actor in playing if actor.ready}
                choice = next(moments, None)
                if choice is None:
                    choices.append(choice := Choice(tuple(ready)))
                # If a schedule did not mean the same each time, some would be played twice and some never.
                assert choice.ready == tuple(ready), f"this time {tuple(ready)} could go on: {choices}"
                ready[choice.ready[choice.taken]].go_on()
                await self._settle(playing)
        schedule = "".join(choice.ready[choice.taken] for choice in choices)
        return Play(schedule, tuple(actor.outcome for actor in playing))

    async def _settle(self, playing: Sequence[Actor]) -> None:
        """Wait until each actor stands before its next statement, or is done, or waits for one who stands."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for actor in sorted(playing, key=lambda each: each.waits):
                while not (actor.ready or actor.done):
                    if actor.waits or not await actor.moved():
                        others = any(other.ready for other in playing)
                        actor.waits = others and await self._waits_for_a_lock(actor)
                        if actor.waits:
                            break

    async def _waits_for_a_lock(self, actor: Actor) -> bool:
        # Other than information_schema.innodb_trx, this is not a picture that may be 0.1 s old.
        async with self._witness.read() as session:
            status = (await session.execute(text("SHOW ENGINE INNODB STATUS"))).one().Status
        own = rf"thread id {actor.connection_id}\b"
        return any(
            "\nLOCK WAIT " in transaction and re.search(own, transaction)
            for transaction in status.split("---TRANSACTION ")
        )


# --- how many there must be ---------------------------------------------------------------------

Path = Sequence[str | None]
"""What an actor sends, statement by statement: the lock that it takes and holds until its end, or None."""


def path(statements: Sequence[str], **locks: str) -> list[str | None]:
    """The statements as a path; `locks` are patterns of those that take a lock, by its name."""
    return [
        next((name for name, pattern in locks.items() if re.search(pattern, statement)), None)
        for statement in statements
    ]


def meetings(first: Path, second: Path, *, sent: tuple[int, int] = (0, 0)) -> int:
    """In how many schedules two actors can meet, from where each of them has sent so many statements.

    Who runs into a lock of the other waits for the other's end and is alone then. So it does not matter what
    it does after that, which may be less than its path says.
    """
    one, other = sent
    if one == len(first) or other == len(second):
        return 1
    first_waits = first[one] is not None and first[one] in second[:other]
    second_waits = second[other] is not None and second[other] in first[:one]
    return (1 if first_waits else meetings(first, second, sent=(one + 1, other))) + (
        1 if second_waits else meetings(first, second, sent=(one, other + 1))
    )
