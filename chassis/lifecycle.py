"""Where the process stands between its start and its end; probes and middlewares ask it."""

from dataclasses import dataclass

from aiohttp import web

from chassis.telemetry.metrics import DRAINING


@dataclass(slots=True)
class Lifecycle:
    """`started` once everything is set up, `draining` from SIGTERM on."""

    started: bool = False
    draining: bool = False

    def drain(self) -> None:
        """Want no new traffic; what comes is still served."""
        self.draining = True
        DRAINING.set(1)


LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
