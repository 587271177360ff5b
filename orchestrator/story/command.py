"""The command: its options, whom it asks, its exit code."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from chassis import __version__, settings
from chassis.auth.service_tokens import ServiceTokens
from chassis.client import Peer, traced_session
from chassis.correlation import PATTERN, is_valid
from chassis.database import Database
from chassis.errors import Problem
from chassis.telemetry import logs
from orchestrator.settings import Settings
from orchestrator.story import page, story
from orchestrator.story.spans import Span
from orchestrator.story.story import Story
from orchestrator.story.traces import Unreadable, spans_of

EX_FAILED = 1
EX_GAPS = 3
PIPE_WIDTH = 120
PATIENCE_SECONDS = 2
"""How long orders is asked for one answer: whoever waits can ask again."""


def trace(
    about: Annotated[
        str, typer.Argument(metavar="ID", help="A correlation id, trace id, saga id or order number.")
    ],
    *,
    traces: Annotated[
        str | None,
        typer.Option(envvar="TRACES", help="A file of OTLP JSON, or the query address of Jaeger."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Tell the story of an order: steps, attempts, times, history, ledger and, if it can be had, the trace.

    Sagas come from the database of the orchestrator, the order with its history and ledger from orders
    at ORDERS_API_BASE, with the service token. No telemetry backend is needed; --traces draws the trace,
    and those that continue it, from what a collector's file exporter wrote or from Jaeger:

    \b
      python -m orchestrator trace ORD-00000101
      python -m orchestrator trace req-456 --traces http://localhost:16686

    Exit code: 0 everything was told, 1 nothing was found or the database cannot be read, 2 an option
    cannot be used, 3 something is missing, and it says what.
    """  # noqa: D301 - typer takes a backspace for "leave this paragraph as it is"
    if not is_valid(about):
        raise typer.BadParameter(f"wants {PATTERN}", param_hint="ID")
    loaded = settings.load(Settings)
    logs.set_up(Settings.service, __version__, "critical", "auto")
    try:
        found, spans = asyncio.run(_find(loaded, about, traces))
    except Problem as problem:
        typer.echo(f"orchestrator: {problem.detail}", err=True)
        raise typer.Exit(EX_FAILED) from None
    if found.is_empty:
        typer.echo(f"orchestrator: no saga and no order of {about}", err=True)
        for gap in found.gaps:
            typer.echo(f"orchestrator: {gap}", err=True)
        raise typer.Exit(EX_FAILED)
    if as_json:
        typer.echo(page.as_json(found, spans))
    else:
        page.show(Console(highlight=False, width=None if Console().is_terminal else PIPE_WIDTH), found, spans)
    raise typer.Exit(EX_GAPS if found.gaps else 0)


async def _find(loaded: Settings, about: str, traces: str | None) -> tuple[Story, list[Span]]:
    database = Database(loaded)
    try:
        async with traced_session() as http:
            peer = Peer(
                http,
                "orders",
                loaded.orders_api_base,
                token=ServiceTokens(loaded).current,
                attempt_seconds=loaded.peer_timeout,
                deadline_seconds=PATIENCE_SECONDS,
            )
            found = await story.find(database, story.Orders(peer), about)
    finally:
        await database.close()
    spans: list[Span] = []
    if traces is not None and not found.is_empty:
        try:
            spans = await spans_of(found, traces)
        except Unreadable as unreadable:
            found.gaps.append(f"No traces: {unreadable}.")
    return found, spans
