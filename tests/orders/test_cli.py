"""`python -m orders`: what operators run."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chassis import dialects
from orders.__main__ import cli
from orders.settings import Settings
from tests.databases import DatabaseUrl
from tests.orders.shop import Level, Shop
from tests.processes import run, variables


async def orders(url: str, *arguments: str) -> Result:
    """Run a command in this process, which is quicker than a new one."""
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=variables(url))


async def test_reconcile_says_that_all_is_in_order(shop: Shop, database_url: DatabaseUrl) -> None:
    await shop.confirmed({await shop.product(): 1})

    result = await orders(database_url(Settings), "reconcile")

    assert result.output == "orders: stock, reservations and totals equal the ledger\n"
    assert result.exit_code == 0


async def test_reconcile_lists_what_is_off_and_fails(shop: Shop, database_url: DatabaseUrl) -> None:
    product_id = await shop.product(stock=10)
    order_id = await shop.confirmed({product_id: 2})
    await shop.sql("UPDATE products SET stock = 9")
    await shop.sql("UPDATE orders SET total_cents = 1")

    result = await asyncio.to_thread(run, "orders", "reconcile", **variables(database_url(Settings)))

    assert result.stdout.splitlines() == [
        f"product {product_id}: stock 9, by ledger 8; reserved 0, by ledger 0",
        f"order {order_id}: total 1 cents, its items add up to 1000",
    ]
    assert result.stderr == "orders: 2 discrepancies\n"
    assert result.returncode == 1


async def test_expire_tidies_up(shop: Shop, database_url: DatabaseUrl) -> None:
    product_id = await shop.product(stock=10)
    expired, _ = await shop.created({product_id: 3}), await shop.created({product_id: 1})
    await shop.set_order(expired, expires_at=dialects.now())

    results = [await orders(database_url(Settings), "expire") for _ in range(2)]

    assert [(result.exit_code, result.output) for result in results] == [
        (0, "orders: 1 expired order(s) canceled\n"),
        (0, "orders: 0 expired order(s) canceled\n"),
    ]
    assert (await shop.show(expired))["cancel_reason"] == "expired"
    assert await shop.level(product_id) == Level(stock=10, reserved=1)


async def test_purge_forgets_the_keys_whose_days_are_over(shop: Shop, database_url: DatabaseUrl) -> None:
    await shop.confirmed({await shop.product(): 1})
    await shop.sql("UPDATE orders_idempotency_keys SET completed_at = '2026-01-01'")
    await shop.confirmed({await shop.product(): 1})

    results = [await orders(database_url(Settings), "purge") for _ in range(2)]

    assert [(result.exit_code, result.output) for result in results] == [
        (0, "orders: 1 idempotency key(s) forgotten\n"),
        (0, "orders: 0 idempotency key(s) forgotten\n"),
    ]


@pytest.mark.parametrize("command", ["expire", "reconcile", "purge"])
async def test_a_command_without_a_schema_says_so_in_one_line(tmp_path: Path, command: str) -> None:
    result = await orders(f"sqlite:///{tmp_path / 'empty.db'}", command)

    assert result.output.startswith("orders: The database schema is not what this release needs")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


@pytest.mark.parametrize("command", ["expire", "reconcile", "purge"])
async def test_a_command_without_a_database_says_so_in_one_line(command: str) -> None:
    result = await orders("mysql://root@127.0.0.1:1/orders", command)

    assert result.output.startswith("orders: The database cannot be reached")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("command", "help_text"),
    [
        ("serve", "Serve HTTP until SIGTERM."),
        ("migrate", "Bring the database schema up to date."),
        ("expire", "Cancel every order whose reservation has expired and release its stock."),
        ("purge", "Forget what was finished long enough ago."),
        ("reconcile", "Compare stock, reservations and totals with the ledger; exit 1 and list what is off."),
    ],
)
async def test_every_command_has_a_help_text(command: str, help_text: str) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, cli, [command, "--help"], terminal_width=110)

    assert result.exit_code == 0
    assert help_text in " ".join(result.output.split())
