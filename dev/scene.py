"""What the parts of the demo share: where they show, whom they ask, and how they check."""

from dataclasses import dataclass
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from dev import calls
from dev.calls import Reply
from dev.otlp import Traces
from dev.stack import Service, Stack

JOB = "/orchestrator/create-and-confirm-order"
Products = dict[int, dict[str, Any]]


class DemoFailed(Exception):  # noqa: N818 - says what was not as it should be
    """A fact is not as it should be."""


@dataclass(frozen=True)
class Scene:
    """A console, and the running services with what they told of themselves."""

    console: Console
    services: Stack
    traces: Traces
    http: aiohttp.ClientSession

    def title(self, text: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.rule(f"[bold]{text}[/]", align="left")

    async def job(self, request: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Reply:
        """Send a main job that should be answered with `status`."""
        url = self.services.orchestrator.url + JOB
        return await calls.post(self.http, url, request, expect=(status,), headers=headers)

    async def get(self, url: str) -> Any:  # noqa: ANN401 - JSON
        """Read."""
        return (await calls.get(self.http, url)).json

    async def command(self, service: Service, *arguments: str, exit_code: int = 0) -> str:
        """Run a command of a service and return what it wrote.

        Raises:
            DemoFailed: it ended with another exit code.

        """
        done = await service.command(*arguments)
        if done.returncode != exit_code:
            raise DemoFailed(
                f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    async def products(self) -> Products:
        """All products by id."""
        found = await self.get(f"{self.services.orders.url}/admin/products/find-all?limit=100")
        return {product["id"]: product for product in found["data"]}


def expect(what: str, found: object, wanted: object) -> None:
    """Check a fact.

    Raises:
        DemoFailed: it is not as it should be.

    """
    if found != wanted:
        raise DemoFailed(f"{what}: wanted {wanted!r}, found {found!r}")


def money(cents: int, currency: str) -> str:
    """An amount as people write it."""
    return f"{cents // 100:,}.{cents % 100:02} {currency}"


def table_of(*columns: str) -> Table:
    """A table; a column whose title ends with `>` is aligned to the right."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left")
    return table
