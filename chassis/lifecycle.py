"""Where the process stands between its start and its end; probes and middlewares ask it."""

from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from chassis.telemetry.metrics import DRAINING


@dataclass(slots=True)
class Lifecycle:
    """`started` once everything is set up, `draining` from SIGTERM on, in the end a deadline."""

    started: bool = False
    draining: bool = False
    deadline: float | None = None

    def drain(self) -> None:
        """Want no new traffic; what comes is still served."""
        self.draining = True
        DRAINING.set(1)

    def end_within(self, seconds: float) -> None:
        """Nothing new comes any more: what runs has so many seconds, requests and all else together."""
        self.deadline = monotonic() + seconds

    def seconds_left(self) -> float:
        """Until the deadline; none when there is no deadline."""
        return 0 if self.deadline is None else max(0, self.deadline - monotonic())


LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
