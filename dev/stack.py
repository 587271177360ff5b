"""The three services as real processes: for the demo, `make up`, the end-to-end tests and the benchmark.

    async with stack(folder) as services:
        print(services.orchestrator.url)
        await services.orders.kill()
        await services.orders.start()   # same ports, same database

They listen on 127.0.0.1 only, see nothing of this process's environment but PATH and the like, so
that no DATABASE_URL of yours is ever touched, and die with this process, even when it is killed.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import aiohttp

from dev.ports import HOST, reserved

PORTS = {"customers": (3001, 9001), "orders": (3002, 9002), "orchestrator": (3010, 9010)}
START_SECONDS = 60
STOP_SECONDS = 10
ROOT = Path(__file__).parent.parent
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")

Ports = Literal["free", "default-if-free"]


class ServiceFailed(Exception):  # noqa: N818 - says what the service said
    """A service did not start; the text has the end of its log."""


@dataclass
class Service:
    """A service as a process. It can be terminated, killed and started again on the same ports."""

    name: str
    port: int
    admin_port: int
    environment: Mapping[str, str]
    log_file: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://{HOST}:{self.port}"

    @property
    def admin_url(self) -> str:
        """Where its probes and metrics are."""
        return f"http://{HOST}:{self.admin_port}"

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ServiceFailed: it ended, or is not ready in time.

        """
        self.launch()
        await self.ready()

    def launch(self) -> None:
        """Start the process."""
        # The kernel ends the service when the thread that started it ends, however that happens.
        setpriv = shutil.which("setpriv")
        tied = (setpriv, "--pdeathsig", "KILL", "--") if setpriv is not None else ()
        with self.log_file.open("ab") as log:
            # In a session of its own: Ctrl-C reaches us only, and we end the services in order.
            self.process = subprocess.Popen(  # noqa: S603 - a fixed command
                (*tied, sys.executable, "-m", self.name, "serve"),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until the process wants traffic.

        Raises:
            ServiceFailed: it ended, or is not ready in time.

        """
        deadline = monotonic() + START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while self.is_running and monotonic() < deadline:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.admin_url}/readyz") as response:
                        if response.ok:
                            return
                await asyncio.sleep(0.05)
        state = f"is not ready after {START_SECONDS} s" if self.is_running else "did not start"
        raise ServiceFailed(f"{self.name} {state}; the end of {self.log_file}:\n{tail(self.log_file)}")

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self.process is not None and self.process.poll() is None

    async def terminate(self) -> int:
        """End it in order, as Kubernetes does, and return its exit code; killed if that takes too long."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> int:
        """End it at once, as a crash does."""
        return await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still, as a machine does that swaps or migrates, until it is resumed."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def replica(self) -> "Service":
        """Another process of this service, on other ports and the same database; it is not started yet."""
        with chosen_ports("free") as chosen:
            port, admin_port = chosen[self.name]
        environment = {**self.environment, "PORT": str(port), "ADMIN_PORT": str(admin_port)}
        log_file = self.log_file.with_stem(f"{self.name}-{port}")
        return replace(
            self, port=port, admin_port=admin_port, environment=environment, log_file=log_file, process=None
        )

    async def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of the service beside it, for instance `reconcile`."""
        return await asyncio.to_thread(
            subprocess.run,
            (sys.executable, "-m", self.name, *arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    async def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            # In a thread, so that what it exports on its way out still reaches a collector beside us.
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait()


@dataclass(frozen=True)
class Stack:
    """The three services, and the folder of their logs and embedded databases."""

    folder: Path
    customers: Service
    orders: Service
    orchestrator: Service

    def __iter__(self) -> Iterator[Service]:
        """Callees first."""
        yield from (self.customers, self.orders, self.orchestrator)


@asynccontextmanager
async def stack(
    folder: Path,
    *,
    database_urls: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    own: Mapping[str, Mapping[str, str]] | None = None,
    ports: Ports = "free",
) -> AsyncIterator[Stack]:
    """Run the three services, with their logs and embedded databases in `folder`, until the block ends.

    `database_urls` names a database by service, `environment` adds variables to all three, `own` to one.

    Raises:
        ServiceFailed: one of them did not start.

    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing runs yet that could be held up
    with chosen_ports(ports) as chosen:
        services = _services(folder, chosen, database_urls or {}, environment or {}, own or {})
        try:
            for one in services:
                one.launch()
            for one in services:
                await one.ready()
            yield services
        finally:
            for one in reversed(list(services)):
                await one.terminate()


def _services(
    folder: Path,
    chosen: Mapping[str, tuple[int, int]],
    database_urls: Mapping[str, str],
    environment: Mapping[str, str],
    own: Mapping[str, Mapping[str, str]],
) -> Stack:
    shared = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "HOST": HOST,
        "DATA_DIR": str(folder),
        "DRAIN_SECONDS": "0",
        "AUTH": "off",
        "CUSTOMERS_API_BASE": f"http://{HOST}:{chosen['customers'][0]}",
        "ORDERS_API_BASE": f"http://{HOST}:{chosen['orders'][0]}",
        **environment,
    }

    def service(name: str) -> Service:
        port, admin_port = chosen[name]
        its = {"PORT": str(port), "ADMIN_PORT": str(admin_port), **own.get(name, {})}
        if name in database_urls:
            its["DATABASE_URL"] = database_urls[name]
        return Service(name, port, admin_port, {**shared, **its}, folder / f"{name}.log")

    return Stack(folder, service("customers"), service("orders"), service("orchestrator"))


@contextmanager
def chosen_ports(ports: Ports) -> Iterator[dict[str, tuple[int, int]]]:
    """A public and an admin port for each service: its default ones, where they are asked for and free."""
    with ExitStack() as held:

        def choose(default: int) -> int:
            return held.enter_context(reserved(default) if ports == "default-if-free" else reserved())

        yield {name: (choose(public), choose(admin)) for name, (public, admin) in PORTS.items()}


def tail(log_file: Path) -> str:
    """The end of a log."""
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-20:])


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a script to its exit code; SIGTERM and a closed terminal stop it as Ctrl-C does."""

    async def stoppable() -> int:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            # SIGINT, too: a shell starts its background jobs with it ignored.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, task.cancel)
        return await main

    try:
        return asyncio.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 128 + signal.SIGINT
