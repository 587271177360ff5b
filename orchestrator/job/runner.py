"""Takes orders from the file as there is room for them, and reports what becomes of each.

A first signal takes no more orders and waits for those in flight, a second one does not wait. Either
way the next run of the file goes on where this one was.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic

from chassis.telemetry import traces
from orchestrator.job.client import Orchestrator
from orchestrator.job.files import OrderFile
from orchestrator.job.lines import FileUnusable
from orchestrator.job.orders import BadRow, Order
from orchestrator.job.progress import Display
from orchestrator.job.results import Result, Status, Totals

EX_FAILED = 1
EX_UNUSABLE = 2
EX_SIGNAL = 128


class ResultsLost(Exception):  # noqa: N818 - says why
    """A result cannot be written."""


class Job:
    """A run through a file; `write` is given the lines with the results."""

    def __init__(
        self,
        file: OrderFile,
        orchestrator: Orchestrator,
        concurrency: int,
        write: Callable[[str], object],
        display: Display,
    ) -> None:
        self._file = file
        self._orchestrator = orchestrator
        self._room = asyncio.Semaphore(concurrency)
        self._write = write
        self._display = display
        self._totals = Totals()
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._stopped_by = 0

    async def run(self) -> int:
        """Run the orders of the file, say what became of them and return the exit code."""
        fault, started = "", monotonic()
        with self._display, traces.tracer.start_as_current_span("job"):
            showing = asyncio.create_task(self._show_now_and_then())
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._taking = tasks.create_task(self._take(tasks))
            except* (FileUnusable, ResultsLost) as failures:
                fault = str(failures.exceptions[0])
            showing.cancel()
            self._show()
        ended = "stopped" if fault or self._stopped_by else "finished"
        self._display.say(f"{ended} after {monotonic() - started:.1f} s: {self._totals}")
        for line in self._totals.summary():
            self._display.say(line)
        if fault:
            self._display.say(fault)
            return EX_UNUSABLE
        if self._stopped_by:
            return EX_SIGNAL + self._stopped_by
        return 0 if self._totals.all_succeeded else EX_FAILED

    def stop(self, number: int) -> None:
        """Take no more orders because of this signal; called again, do not wait for those in flight."""
        if self._stopped_by:
            for task in self._in_flight.values():
                task.cancel()
            return
        self._stopped_by = number
        self._orchestrator.hurry()
        self._taking.cancel()
        self._display.say(f"stopping, {len(self._in_flight)} order(s) in flight")

    async def _take(self, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(self._file.rows()) as rows:
            async for row in rows:
                if isinstance(row, BadRow):
                    self._report(_never_tried(row))
                    continue
                await self._room.acquire()
                # Of two orders with one reference, the one that stands first in the file is first.
                if (twin := self._in_flight.get(row.key)) is not None:
                    await asyncio.wait([twin])
                self._in_flight[row.key] = tasks.create_task(self._try(row))

    async def _try(self, order: Order) -> None:
        try:
            self._report(await self._orchestrator.run(order))
        finally:
            del self._in_flight[order.key]
            self._room.release()

    def _report(self, result: Result) -> None:
        self._totals.add(result)
        try:
            self._write(result.model_dump_json())
        except OSError as error:
            raise ResultsLost(f"the results cannot be written: {error.strerror}") from None

    async def _show_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._display.seconds)
            self._show()

    def _show(self) -> None:
        progress = str(self._totals)
        if self._in_flight:
            progress += f"; {len(self._in_flight)} in flight"
        if waiting := self._orchestrator.waiting:
            progress += f", {len(waiting)} to be tried again: {next(reversed(waiting.values()))}"
        self._display.show(progress, self._file.fraction)


def _never_tried(row: BadRow) -> Result:
    return Result(
        line=row.line, reference=row.reference, status=Status.INVALID, code="row.invalid", detail=row.fault
    )
