"""The command: its options, its exit code."""

import asyncio
from functools import partial
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Annotated

import aiohttp
import typer

from chassis import __version__
from chassis.auth.files import WatchedFile
from chassis.telemetry import logs
from orchestrator.options import access_token, base_url, check_token
from orchestrator.smoke.run import SmokeTest
from orchestrator.smoke.services import Caller, Say, Service

NAME = "orchestrator-smoke"


def smoke(
    *,
    url: Annotated[
        str, typer.Option(envvar="ORCHESTRATOR_API_BASE", help="Address of the orchestrator.")
    ] = "http://localhost:3010",
    customers: Annotated[
        str, typer.Option(envvar="CUSTOMERS_API_BASE", help="Address of customers.")
    ] = "http://localhost:3001",
    orders: Annotated[
        str, typer.Option(envvar="ORDERS_API_BASE", help="Address of orders.")
    ] = "http://localhost:3002",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ORCHESTRATOR_TOKEN_FILE",
            help="File with an access token for customers:write, products:write, products:read, orders:read,"
            " sagas:write and sagas:read; default: none.",
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(min=0, max=3600, help="Seconds to go on asking a service that is not there yet."),
    ] = 120,
) -> None:
    """Try the three services as they are installed, over HTTP only.

    Makes a customer and products of its own, then: the main job makes an order and confirms it; the
    same request again has the same answer, byte for byte; more than there is, is refused; stock,
    ledger, totals and the saga agree. At the end customer and products are deactivated; the order of
    34.30 USD stays.

    May be run again and again, and several at a time. A line a step; at the end, what failed and what to
    look at. Exit code: 0 all is well, 1 something is not, 2 an option cannot be used.
    """
    addresses = (base_url(customers, "--customers"), base_url(orders, "--orders"), base_url(url, "--url"))
    if token_file is not None:
        check_token(token_file)
    logs.set_up(NAME, __version__, "error", "auto")
    if not asyncio.run(succeeds(*addresses, token_file, patience, partial(print, flush=True))):
        raise typer.Exit(1)


async def succeeds(  # noqa: PLR0913, PLR0917 - whom to ask, and as the options say
    customers: str, orders: str, orchestrator: str, token_file: Path | None, patience: float, say: Say
) -> bool:
    """Whether a smoke test of these services finds nothing wrong; `say` is given its lines."""
    name = f"smoke-{token_hex(5)}"
    token = WatchedFile(token_file, access_token) if token_file is not None else None
    async with aiohttp.ClientSession() as http:
        caller = Caller(http, name, token, monotonic() + patience, say)
        test = SmokeTest(
            name,
            Service("customers", customers, "--customers (CUSTOMERS_API_BASE)", caller),
            Service("orders", orders, "--orders (ORDERS_API_BASE)", caller),
            Service("orchestrator", orchestrator, "--url (ORCHESTRATOR_API_BASE)", caller),
            say,
        )
        return await test.run()
