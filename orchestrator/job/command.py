"""The command: its options, the files it opens, its exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, BinaryIO, TextIO

import typer
import uvloop
from yarl import URL

from chassis import __version__
from chassis.telemetry import logs, traces
from orchestrator.job.client import connected
from orchestrator.job.download import FileUnreachable, address_of, download
from orchestrator.job.files import Form, OrderFile, form_of
from orchestrator.job.lines import FileUnusable
from orchestrator.job.progress import Bar, Lines
from orchestrator.job.runner import Job
from orchestrator.options import base_url, check_token

NAME = "orchestrator-job"
EX_TEMPFAIL = 75


def job(  # noqa: PLR0913 - the options of a command
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The orders: a file or its http(s) address; - is standard input."
        ),
    ],
    *,
    url: Annotated[
        str, typer.Option(envvar="ORCHESTRATOR_API_BASE", help="Address of the orchestrator.")
    ] = "http://localhost:3010",
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Default: what the file's name ends with, or what it begins with."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Where results go; default: standard output."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ORCHESTRATOR_TOKEN_FILE",
            help="File with an access token for sagas:write, read again when it changes; default: none.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="How many orders at a time.")] = 8,
    patience: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds to go on trying an order that gets no answer.")
    ] = 120,
) -> None:
    """Run a file of orders: validate the customer, create the order, confirm it, for each.

    Run it again after whatever happened: an order is known by its reference, and what is done is not
    repeated. A refusal is final; order again under a new reference. References are remembered for
    the days that IDEMPOTENCY_DAYS of the orchestrator says, purchase order numbers for good.

    JSON Lines has an order a line, CSV an item a row, with comma or semicolon. The rows of an order
    stand together. purchase_order_number and correlation_id may be left out:

    \b
      {"reference": "A-17", "customer_id": 1, "items": [{"product_id": 1, "qty": 2}]}

    \b
      reference,customer_id,product_id,qty,purchase_order_number
      A-17,1,1,2,PO-2026-0042
      A-17,1,3,10,PO-2026-0042

    Every order gets a line of JSON with its line in the file, reference, status, order_number,
    order_id, saga_id, total_cents, code, detail, attempts and replayed. The status is succeeded,
    refused (by the rules of the business), invalid (the file has to be corrected) or unfinished (run
    it again). Ctrl-C takes no more orders and waits for those under way, twice does not wait.

    Exit code: 0 all succeeded, 1 some did not, 2 the file or an option cannot be used, 75 the file
    cannot be fetched now, 130 or 143 stopped by a signal.
    """  # noqa: D301 - typer takes a backspace for "leave this paragraph as it is"
    address = base_url(url, "--url")
    if token_file is not None:
        check_token(token_file)
    display = Bar() if sys.stderr.isatty() else Lines()
    with ExitStack() as stack:
        if (source := _address(file)) is not None:
            form = form or form_of(source.path)
            orders = stack.enter_context(_fetched(source))
        else:
            orders = sys.stdin.buffer if file == "-" else stack.enter_context(_opened(Path(file)))
        write: Callable[[str], object] = display.say
        if output is not None or not sys.stdout.isatty() or not sys.stderr.isatty():
            write = partial(print, file=stack.enter_context(_results(output, orders)), flush=True)

        async def run() -> int:
            async with connected(address, patience, token_file) as orchestrator:
                running = Job(OrderFile(orders, form), orchestrator, concurrency, write, display)
                for number in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(number, running.stop, number)
                code = await running.run()
            await traces.shut_down()
            return code

        logs.set_up(*traces.named(NAME, __version__), "error", "auto")
        traces.set_up(NAME, __version__)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run())
    raise typer.Exit(code)


def _address(file: str) -> URL | None:
    try:
        return address_of(file)
    except FileUnusable as fault:
        raise typer.BadParameter(f"{file}: {fault}.", param_hint="FILE") from None


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None


def _fetched(source: URL) -> BinaryIO:
    try:
        copy = TemporaryFile()  # noqa: SIM115 - closed by who asked for it
        asyncio.run(download(source, copy))
        copy.seek(0)
    except FileUnusable as fault:
        raise typer.BadParameter(f"{fault}.", param_hint="FILE") from None
    except FileUnreachable as fault:
        typer.echo(f"job: {fault}", err=True)
        raise typer.Exit(EX_TEMPFAIL) from None
    except OSError as error:
        raise typer.BadParameter(
            f"No folder for a copy of the file: {error.strerror}.", param_hint="FILE"
        ) from None
    return copy


@contextmanager
def _results(output: Path | None, orders: BinaryIO) -> Iterator[TextIO]:
    """Where result lines go, in UTF-8 whatever the locale."""
    if output is not None and output.is_file() and os.path.samestat(output.stat(), os.fstat(orders.fileno())):
        raise typer.BadParameter("The results would overwrite the orders.", param_hint="--output")
    try:
        target = sys.stdout.fileno() if output is None else output
        results = open(target, "w", encoding="utf-8", closefd=output is not None)  # noqa: SIM115 - descriptor or path; closed below
    except OSError as error:
        raise typer.BadParameter(f"{output}: {error.strerror}", param_hint="--output") from None
    try:
        yield results
    finally:
        with suppress(OSError):  # every line was flushed: what could not be written was reported then
            results.close()
