"""The process of a service: two ports, and an end that loses nothing.

aiohttp's own `run_app` closes its listeners first, so that load balancers which still send traffic
meet refused connections. Here SIGTERM means, in order: unready, serve on for `drain_seconds` with
`Connection: close`, stop listening and finish, close engines and clients, export telemetry.

Each part has its time, so that Kubernetes never has to kill the process: SHUTDOWN_TIMEOUT for requests
and all that is done for them, then GIVE_BACK_SECONDS for leases (`orchestrator/driver.py`), DB_TIMEOUT
for transactions that no client waits for any more, and LAST_SECONDS for spans (`telemetry/export.py`).
"""

import asyncio
import signal
from collections.abc import Callable

import prometheus_client
import structlog
import uvloop
from aiohttp import web

from chassis import __version__, failpoints
from chassis.app import ADMIN
from chassis.connections import MAX_HEADER_BYTES, MAX_HEADERS, Server
from chassis.http import SETTINGS
from chassis.lifecycle import LIFECYCLE
from chassis.middlewares import refusals_of_aiohttp
from chassis.settings import Settings
from chassis.telemetry import logs, traces

ADMIN_SHUTDOWN_SECONDS = 1
log = structlog.get_logger(__name__)


def serve(settings: Settings, create_app: Callable[[], web.Application]) -> None:
    """Run the service until SIGTERM or SIGINT; ends the process with a one-line reason if it cannot start."""
    logs.set_up(*traces.named(settings.service, __version__), settings.log_level, settings.log_format)
    traces.set_up(settings.service, __version__)
    failpoints.arm(settings.failpoints)
    # Without it every counter has a second series, with the time of its creation.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # as the package ships it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(create_app))
        except OSError as error:
            raise SystemExit(f"{settings.service} cannot start: {error.strerror or error}") from None
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None


async def _serve(create_app: Callable[[], web.Application]) -> None:
    app = create_app()
    settings = app[SETTINGS]
    admin = web.AppRunner(app[ADMIN], access_log=None, shutdown_timeout=ADMIN_SHUTDOWN_SECONDS)
    public = Runner(app)
    await admin.setup()
    await web.TCPSite(admin, settings.host, settings.admin_port).start()
    try:
        await public.setup()
        stop = _stop_signal()  # before this a signal ends the process at once: nothing is being served
        await web.TCPSite(public, settings.host, settings.port, backlog=1024).start()
        log.info("serving", port=public.addresses[0][1], admin_port=admin.addresses[0][1])
        await stop.wait()
        log.info("draining", seconds=settings.drain_seconds)
        app[LIFECYCLE].drain()
        await asyncio.sleep(settings.drain_seconds)
    finally:
        await public.cleanup()
        await admin.cleanup()
        await traces.shut_down()
        log.info("stopped")


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


class Runner(web.AppRunner):
    """An AppRunner with our limits and our protocol."""

    def __init__(self, app: web.Application) -> None:
        settings = app[SETTINGS]
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=settings.keepalive_timeout,
            lingering_time=settings.body_timeout,  # for the rest of a body that is refused
            shutdown_timeout=settings.shutdown_timeout / 2,  # aiohttp waits twice for a handler
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            auto_decompress=False,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        ours = Server(
            refusals_of_aiohttp(server.request_handler),
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001 - aiohttp has no hook for another protocol
            **server._kwargs,  # noqa: SLF001 - as above
        )
        ours.settings = self.app[SETTINGS]
        return ours
