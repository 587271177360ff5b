"""`/log-level` on the admin port: see the level of the log and change it while the service runs.

    curl -X PUT localhost:9002/log-level -d '{"level": "debug", "seconds": 600}'

With `seconds` the configured level comes back by itself, so that nobody has to remember.
"""

import asyncio
import logging
from typing import Annotated

import structlog
from aiohttp import web
from pydantic import Field, ValidationError

from chassis.http import Schema
from chassis.settings import LogLevel, Settings

MAX_SECONDS = 86_400
log = structlog.get_logger(__name__)


class Change(Schema):
    """What is sent: the level, and after how long it ends; without `seconds` it stays."""

    level: LogLevel
    seconds: Annotated[float | None, Field(gt=0, le=MAX_SECONDS)] = None


class _Level:
    """The level of this process."""

    def __init__(self, configured: LogLevel) -> None:
        self._configured = configured
        self._end: asyncio.TimerHandle | None = None

    def change(self, change: Change) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        _set(change.level)
        if change.seconds is not None:
            self._end = asyncio.get_running_loop().call_later(change.seconds, _set, self._configured)


def _set(level: LogLevel) -> None:
    logging.getLogger().setLevel(level.upper())
    log.warning("log level changed", new_level=level)


def add_routes(admin: web.Application, settings: Settings) -> None:
    """Add the routes to the admin application."""
    level = _Level(settings.log_level)

    async def show(_request: web.Request) -> web.Response:
        return web.json_response({"level": logging.getLevelName(logging.getLogger().level).lower()})

    async def change(request: web.Request) -> web.Response:
        try:
            level.change(Change.model_validate_json(await request.read()))
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            return web.json_response({"errors": wrong}, status=400)
        return await show(request)

    admin.router.add_get("/log-level", show)
    admin.router.add_put("/log-level", change)
