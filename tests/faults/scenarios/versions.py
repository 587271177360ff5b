"""The release before this one died in the middle of its work: this one takes up its sagas.

There is a file for every revision of the sagas' table that was ever released, see `revisions.py`. It is
taken up in two ways: by a release that migrates it first, and by one that had migrated already while
the release before was still writing, as in a rolling update.
"""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

from sqlalchemy import select

from dev.mariadb import Server
from orchestrator.models import Saga
from tests.faults.campaign import Case
from tests.faults.revisions import FOLDER, NAME, load
from tests.faults.run import Run, ScenarioFailed
from tests.faults.world import open_world

SCENARIO = "versions"
TABLES = ("sagas", "orchestrator_idempotency_keys")


def take_up(file: Path, *, rolling: bool) -> Callable[[Run], Awaitable[None]]:
    """Start this release on what the release of the file left."""

    async def act(run: Run) -> None:
        server, schema = run.world.server, f"faults_{uuid4().hex[:8]}"
        folder = run.world.services.folder / schema

        def fill() -> None:
            load(server, schema, file)
            if rolling:
                _put_aside(server, schema)

        run.name = NAME.format(file.stem)
        run.fault()
        run.world = await run.opened.enter_async_context(open_world(server, folder, schema, fill))
        if rolling:
            _write(server, schema)
        await _clients_come_back(run)

    return act


def _put_aside(server: Server, schema: str) -> None:
    """Take the rows out of the tables, as they are before the migration."""
    for table in TABLES:
        rows = f"SELECT * FROM {table}"  # noqa: S608 - names of ours
        server.execute(f"USE `{schema}`; CREATE TABLE old_{table} AS {rows}; TRUNCATE {table}")


def _write(server: Server, schema: str) -> None:
    """Write them into the migrated tables, with the columns that the release before knows."""
    for table in TABLES:
        described = server.execute(f"DESCRIBE `{schema}`.old_{table}").splitlines()
        columns = ", ".join(f"`{line.split()[0]}`" for line in described)
        copied = f"SELECT {columns} FROM old_{table}"  # noqa: S608 - names of ours
        server.execute(f"USE `{schema}`; INSERT INTO {table} ({columns}) {copied}")


async def _clients_come_back(run: Run) -> None:
    """Let every other client repeat its request; the others never come back."""
    async with run.world.databases() as (database, _), database.read() as session:
        sagas = (await session.scalars(select(Saga).order_by(Saga.correlation_id))).all()
    if not sagas:
        raise ScenarioFailed("there was no saga to take up")
    run.bodies = {saga.correlation_id: saga.request for saga in sagas}
    for saga in sagas[::2]:
        await run.insist(saga.request, saga.correlation_id)


def _cases() -> Iterator[Case]:
    files = sorted(FOLDER.glob("*.sql"))
    for file in files:
        migrated = take_up(file, rolling=False)
        yield Case(SCENARIO, f"revision {file.stem} is migrated", migrated, short=file == files[-1])
        yield Case(SCENARIO, f"revision {file.stem} writes on", take_up(file, rolling=True))


CASES = tuple(_cases())
