"""What a release leaves in its database when it dies: a file of SQL for every revision of the sagas.

    python -m tests.faults.revisions     write the file of this release's revision, once it is released

The file has the tables of all three services and a saga at each place where a process can die, made by
the release itself. A later release is started on it by `scenarios/versions.py`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from sqlalchemy import text

from chassis import migrations
from dev.mariadb import Server, private_server
from orchestrator import failpoints
from orchestrator.models import Step
from tests.faults.run import Run
from tests.faults.world import World, open_world

FOLDER = Path(__file__).parent / "left_behind"
NAME = "revision-{}"
"""Of the run that a file's keys belong to, with the revision in it."""
SLOW_CONFIRMATION = f"{failpoints.BEFORE[Step.CONFIRM_ORDER].name}=wait(0.7)"
SHORT_RESERVATION = "0.3"
"""Seconds: with the line above, an order expires before its confirmation, which is compensated then."""
PLACES = (
    failpoints.SAGA_COMMITTED,
    *(failpoints.UNREAD[step] for step in Step),
    *(failpoints.RECORDED[step] for step in list(Step)[:2]),
    failpoints.BEFORE[Step.CANCEL_ORDER],
    failpoints.SAGA_ENDED,
)


def load(server: Server, schema: str, file: Path) -> None:
    """Fill an empty schema with a file.

    It is older than any reservation and any key: both are given their time again.
    """
    server.execute(f"USE `{schema}`; {file.read_text()}")
    now = "UTC_TIMESTAMP(6)"
    server.execute(
        f"USE `{schema}`; UPDATE orders SET expires_at = {now} + INTERVAL 1 DAY;"  # noqa: S608 - names of ours
        f"UPDATE orders_idempotency_keys SET completed_at = {now} WHERE completed_at IS NOT NULL;"
        f"UPDATE orchestrator_idempotency_keys SET completed_at = {now} WHERE completed_at IS NOT NULL"
    )


async def _make(server: Server, folder: Path) -> Path:
    """Let the orchestrator die at each place with one saga, and write down what is in the database."""
    revision = migrations.head("orchestrator")
    async with open_world(server, folder, "made") as world:
        run = Run(NAME.format(revision), world, Random(0))  # noqa: S311 - makes no choice that matters
        body = await world.basket()
        target = world.services.orchestrator
        for place in PLACES:
            doomed = Step.CANCEL_ORDER in place.name
            plan = [f"{place.name}=kill", *([SLOW_CONFIRMATION] if doomed else [])]
            ttl = {"RESERVATION_TTL": SHORT_RESERVATION} if doomed else {}
            await world.restart(world.services.orders, **ttl)
            # It takes over nothing of those that died before it.
            await world.restart(target, FAILPOINTS=",".join(plan), SWEEP_EVERY="86400")
            asking = asyncio.create_task(run.ask(body, run.key()))
            await run.died(target)
            await asking
        await world.restart(world.services.orders)
        await world.restart(target, SWEEP_EVERY="86400")
        await run.ask(body, run.key())
        await run.ask({**body, "items": [{"product_id": 10**9, "qty": 1}]}, run.key())
        file = FOLDER / f"{revision}.sql"
        FOLDER.mkdir(exist_ok=True)
        file.write_text("".join([line async for line in _dump(world)]))
        return file


async def _dump(world: World) -> AsyncIterator[str]:
    yield "SET foreign_key_checks = 0;\n"
    async with world.databases() as (database, _), database.read() as session:
        for table in (await session.execute(text("SHOW TABLES"))).scalars().all():
            (_, definition) = (await session.execute(text(f"SHOW CREATE TABLE `{table}`"))).one()
            yield f"{definition};\n"
            rows = (await session.execute(text(f"SELECT * FROM `{table}`"))).all()  # noqa: S608 - as the server calls it
            if rows:
                values = ",\n".join(f"({', '.join(map(_literal, row))})" for row in rows)
                yield f"INSERT INTO `{table}` VALUES\n{values};\n"


def _literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"x'{value.hex()}'"
        case int():
            return str(value)
        case datetime():
            return f"'{value.isoformat(sep=' ', timespec='microseconds')}'"
        case str():
            escaped = value.replace("\\", "\\\\").replace("'", "''")
            return f"'{escaped}'"
    raise TypeError(type(value))


def main() -> int:
    """Write the file of this release."""
    with TemporaryDirectory(prefix="b2b-revision-") as folder, private_server(Path(folder, "db")) as server:
        print(asyncio.run(_make(server, Path(folder, "world"))))  # noqa: T201 - a script
    return 0


if __name__ == "__main__":
    sys.exit(main())
