"""The migrations that a service applies while it starts.

A service does not wait for its database: it listens, says why it is not ready, refuses what needs the
database, and goes on by itself once the database is there. A restart would do nothing else, later.
"""

import asyncio
import random
from collections.abc import Iterator

import structlog

from chassis import migrations
from chassis.database import Database
from chassis.errors import DatabaseUnavailable, Problem, SchemaBroken, SchemaMigrating
from chassis.migrations import DatabaseAbsent, MigrationFailed, SchemaBusy
from chassis.settings import Settings

FIRST_PAUSE_SECONDS = 0.2
LAST_PAUSE_SECONDS = 5.0
BROKEN_PAUSE_SECONDS = 60.0
"""A migration that fails may be expensive, and waits for somebody to put something right."""
log = structlog.get_logger(__name__)


async def bring_up_to_date(settings: Settings, database: Database) -> None:
    """Migrate, however often that has to be tried; until it is done `database` refuses all work.

    The log has a line for each change of what it waits for, not for each attempt.
    """
    said = ""
    for pause in _pauses():
        refusal: type[Problem] = SchemaBroken
        try:
            revision = await _attempt(settings, database)
        except DatabaseAbsent as failure:
            refusal, reason = DatabaseUnavailable, str(failure)
        except SchemaBusy as failure:
            refusal, reason = SchemaMigrating, str(failure)
        except MigrationFailed as failure:
            reason = str(failure)
        except Exception as error:
            reason = repr(error)
            if reason != said:
                log.exception("unhandled error")
        else:
            database.refusal = None
            is_ours = revision == migrations.head(settings.service)
            log.info("schema is up to date" if is_ours else "schema is of a newer release", revision=revision)
            return
        database.refusal = refusal
        if reason != said:
            log.warning("schema is not up to date", error_code=refusal.code, reason=reason)
            said = reason
        await asyncio.sleep(BROKEN_PAUSE_SECONDS if refusal is SchemaBroken else pause)


async def _attempt(settings: Settings, database: Database) -> str:
    async with migrations.connected(settings) as connection:
        database.refusal = SchemaMigrating
        applying = asyncio.create_task(migrations.apply(connection, settings.service))
        try:
            return await asyncio.shield(applying)
        except asyncio.CancelledError:
            # The server goes on with a statement whether we listen or not: see its end.
            await asyncio.wait([applying])
            raise


def _pauses() -> Iterator[float]:
    """Longer and longer, and never the same for two replicas."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
