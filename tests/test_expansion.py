"""Every revision lets the release before go on working, and what would not is noticed."""

import shutil
from pathlib import Path

import pytest

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.settings import Settings
from tests.databases import ROOT, Databases, on_database
from tests.expansion import revisions

SERVICES = (customers.settings.Settings, orders.settings.Settings, orchestrator.settings.Settings)
REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{head}"
{contracts}

def upgrade() -> None:
    {change}
"""
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.mark.parametrize("settings_class", SERVICES, ids=lambda each: each.service)
async def test_no_revision_takes_from_the_release_before_what_it_needs(
    settings_class: type[Settings], databases: Databases, tmp_path: Path
) -> None:
    settings = settings_class(**on_database(databases.empty(tmp_path)))

    found = await revisions(settings, ROOT / settings.service / "migrations")

    for revision, its in found.items():
        assert its.taken == [] or its.contracts, f"revision {revision} of {settings.service}"


@only_sqlite
@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ("op.drop_column('customers', 'phone')", ["customers.phone is gone"]),
        (
            "op.execute('ALTER TABLE customers RENAME COLUMN phone TO telephone')",
            ["customers.phone is gone"],
        ),
        (
            "op.execute('ALTER TABLE customers RENAME TO clients')",
            ["customers is gone"],
        ),
        (
            "op.execute('CREATE UNIQUE INDEX one_phone ON customers (phone)')",
            ["customers wants unique ['phone']"],
        ),
        (
            "op.execute('ALTER TABLE customers ADD COLUMN x INTEGER CHECK (x > 0)')",
            ["customers wants check x > 0"],
        ),
        ("op.add_column('customers', sa.Column('vat', sa.String(20)))", []),
        ("op.add_column('customers', sa.Column('n', sa.Integer, nullable=False, server_default='0'))", []),
        ("op.create_index('ix_name', 'customers', ['name'])", []),
        ("op.create_table('segments', sa.Column('name', sa.String(9), nullable=False))", []),
    ],
)
async def test_what_a_revision_takes_away_is_noticed(
    databases: Databases, tmp_path: Path, change: str, taken: list[str]
) -> None:
    settings = customers.settings.Settings(**on_database(databases.empty(tmp_path)))
    folder = _with(tmp_path, change)

    assert (await revisions(settings, folder))["9001"].taken == taken


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
async def test_what_only_some_databases_let_a_revision_take_is_noticed_there(
    databases: Databases, tmp_path: Path
) -> None:
    settings = customers.settings.Settings(**on_database(databases.empty(tmp_path)))
    changes = (
        "ADD COLUMN vat INTEGER NOT NULL",
        "MODIFY name VARCHAR(10) NOT NULL",
        "MODIFY phone VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
        "ALTER COLUMN is_active DROP DEFAULT",
    )
    folder = _with(tmp_path, f"op.execute('ALTER TABLE customers {', '.join(changes)}')")

    assert sorted((await revisions(settings, folder))["9001"].taken) == [
        "customers.is_active has lost its default",
        "customers.name has another type",
        "customers.phone may not be empty",
        "customers.vat has to be given",
    ]


@only_sqlite
async def test_a_revision_says_why_it_may_take_something_away(databases: Databases, tmp_path: Path) -> None:
    settings = customers.settings.Settings(**on_database(databases.empty(tmp_path)))
    folder = _with(tmp_path, "op.drop_column('customers', 'phone')", "contracts = 'Nobody reads it.'")

    its = (await revisions(settings, folder))["9001"]

    assert (its.taken, its.contracts) == (["customers.phone is gone"], "Nobody reads it.")


def _with(folder: Path, change: str, contracts: str = "") -> Path:
    """The revisions of customers and one more."""
    copied = folder / "migrations"
    shutil.copytree(ROOT / "customers" / "migrations", copied, ignore=shutil.ignore_patterns("__pycache__"))
    head = max((copied / "versions").glob("*.py")).name[:4]
    text = REVISION.format(head=head, change=change, contracts=contracts)
    (copied / "versions" / "9001_next.py").write_text(text)
    return copied
