"""The admin port: `/livez`, `/readyz`, `/startupz` for Kubernetes, `/metrics` for Prometheus, `/log-level`.

Liveness says only that the event loop turns, the start-up probe that the process listens: neither
waits for the database, or Kubernetes would restart a service because its database is late, or while
it migrates. Readiness asks the database for the revision of its schema (not the peers: an outage of
one must not take its callers out of service), at most once a second, with its own timeout and on a
connection of its own. What lets requests read but not write (a full disk, a database that is
read-only) leaves a service ready: replicas share the database, so it would take reads away, too.
"""

import asyncio
from time import monotonic

import structlog
from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from chassis import log_level, migrations
from chassis.database import DATABASE
from chassis.errors import Problem, SchemaOutdated
from chassis.http import SETTINGS
from chassis.lifecycle import LIFECYCLE
from chassis.telemetry.metrics import READY

CHECK_TIMEOUT_SECONDS = 2
CHECK_EVERY_SECONDS = 1
log = structlog.get_logger(__name__)


class Readiness:
    """The cached answer to "does the service want traffic?"."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._checked_at = float("-inf")
        self._reason: str | None = None
        self._lock = asyncio.Lock()

    async def reason_against(self) -> str | None:
        """Why the service wants no traffic; None when it does."""
        lifecycle = self._app[LIFECYCLE]
        if not lifecycle.started:
            reason: str | None = "starting"
        elif lifecycle.draining:
            reason = "draining"
        else:
            async with self._lock:
                if monotonic() - self._checked_at > CHECK_EVERY_SECONDS:
                    before, self._reason = self._reason, await self._check_database()
                    self._checked_at = monotonic()
                    if self._reason != before:
                        _say(self._reason, self._app[SETTINGS].service)
            reason = self._reason
        READY.set(reason is None)
        return reason

    async def _check_database(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                async with self._app[DATABASE].probe() as session:
                    outdated = await migrations.is_outdated(session, self._app[SETTINGS].service)
        except Problem as problem:
            return problem.code
        except TimeoutError:
            return "db.slow"
        return SchemaOutdated.code if outdated else None


def _say(reason: str | None, service: str) -> None:
    if reason is None:
        log.info("ready")
    elif reason == SchemaOutdated.code:
        wanted = migrations.head(service)
        log.warning("not ready", reason=reason, wanted=wanted, command=f"python -m {service} migrate")
    else:
        log.warning("not ready", reason=reason)


def build_admin_app(app: web.Application) -> web.Application:
    """The application behind the admin port of `app`."""
    readiness = Readiness(app)

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        reason = await readiness.reason_against()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def startupz(_request: web.Request) -> web.Response:
        started = app[LIFECYCLE].started
        return web.json_response(
            {"status": "started" if started else "starting"}, status=200 if started else 503
        )

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    admin = web.Application()
    admin.router.add_get("/livez", livez)
    admin.router.add_get("/readyz", readyz)
    admin.router.add_get("/startupz", startupz)
    admin.router.add_get("/metrics", metrics)
    log_level.add_routes(admin, app[SETTINGS])
    return admin
