"""Whether a revision only expands: what it takes away from the code of the release before.

    for revision, taken in (await revisions(settings, folder)).items(): ...

The schema itself is compared before and after each revision, so it does not matter how one is written.
What a revision takes away although nobody needs it any more says so, in the file:

    contracts = "No release since 1.4 reads phone."
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector

from chassis import migrations
from chassis.settings import Settings


@dataclass(frozen=True)
class Revision:
    """What a revision takes away, a sentence each, and why it may."""

    taken: list[str]
    contracts: str


async def revisions(settings: Settings, folder: Path) -> dict[str, Revision]:
    """Apply the revisions of a folder to an empty database, one by one; tell of all but the first."""
    found = {}
    async with migrations.connected(settings) as connection:
        scripts = ScriptDirectory(str(folder))
        for script in reversed(list(scripts.walk_revisions())):
            before = await connection.run_sync(_schema)
            await connection.run_sync(_upgrade, folder, script.revision)
            await connection.commit()
            taken = _taken(before, await connection.run_sync(_schema))
            if script.down_revision is not None:
                found[script.revision] = Revision(taken, getattr(script.module, "contracts", ""))
    return found


def _upgrade(connection: Connection, folder: Path, revision: str) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder))
    command.upgrade(config, revision)


Columns = dict[str, Any]
Schema = dict[str, tuple[Columns, set[str]]]


def _schema(connection: Connection) -> Schema:
    """By table: its columns by name, and what rows have to fulfil."""
    inspector = sa.inspect(connection)
    return {
        table: (
            {column["name"]: column for column in inspector.get_columns(table)},
            _rules(inspector, table),
        )
        for table in inspector.get_table_names()
    }


def _rules(inspector: Inspector, table: str) -> set[str]:
    unique = [index for index in inspector.get_indexes(table) if index["unique"]]
    return {
        *(f"unique {each['column_names']}" for each in (*unique, *inspector.get_unique_constraints(table))),
        *(
            f"{each['constrained_columns']} in {each['referred_table']}"
            for each in inspector.get_foreign_keys(table)
        ),
        *(f"check {each['sqltext']}" for each in inspector.get_check_constraints(table)),
    }


def _taken(before: Schema, after: Schema) -> list[str]:
    """What code that was made for the schema before cannot do any more on the one after."""
    taken = [f"{table} is gone" for table in before.keys() - after.keys()]
    for table in sorted(before.keys() & after.keys()):
        (old, old_rules), (new, new_rules) = before[table], after[table]
        taken += [f"{table}.{name} is gone" for name in old.keys() - new.keys()]
        taken += [
            f"{table}.{name} has to be given"
            for name in new.keys() - old.keys()
            if not new[name]["nullable"] and new[name]["default"] is None
        ]
        for name in old.keys() & new.keys():
            if str(old[name]["type"]) != str(new[name]["type"]):
                taken.append(f"{table}.{name} has another type")
            if old[name]["nullable"] and not new[name]["nullable"]:
                taken.append(f"{table}.{name} may not be empty")
            if old[name]["default"] is not None and new[name]["default"] is None:
                taken.append(f"{table}.{name} has lost its default")
        taken += [f"{table} wants {rule}" for rule in sorted(new_rules - old_rules)]
    return taken
