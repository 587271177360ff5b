"""What the benchmark runs on, and which process takes the time of the CPU."""

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import text

from chassis import __version__
from chassis.database import Database

_LIBRARIES = ("aiohttp", "asyncmy", "opentelemetry-sdk", "pydantic", "SQLAlchemy", "uvloop")
_VARIABLES = ("version", "innodb_flush_log_at_trx_commit", "innodb_buffer_pool_size", "log_bin")


def describe() -> dict[str, Any]:
    """The machine and the versions of what is measured."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "b2b-orders": __version__,
        **{library: version(library) for library in _LIBRARIES},
    }


def _cpu_model() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    return platform.machine()


async def describe_database(database: Database) -> dict[str, Any]:
    """The server, and what decides about the speed of its commits."""
    columns = ", ".join(f"@@{name} AS {name}" for name in _VARIABLES)
    async with database.read() as session:
        return dict((await session.execute(text(f"SELECT {columns}"))).mappings().one())


async def database_process(database: Database) -> int | None:
    """The process of the server, if it runs on this machine and lets itself be seen."""
    async with database.read() as session:
        return _number_in(*(await session.execute(text("SELECT @@datadir, @@pid_file"))).one())


def _number_in(folder: str, file: str) -> int | None:
    with suppress(OSError, ValueError):
        return int(Path(folder, file).read_text())
    return None


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """The CPU time that each process has taken so far, where there is a /proc to ask."""
    seconds = {}
    for name, process in processes.items():
        with suppress(OSError):
            user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds[name] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


def memory_mib(process: int) -> int | None:
    """The memory that a process has in use, where there is a /proc to ask."""
    with suppress(OSError):
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        if found:
            return round(int(found.group(1)) / 1024)
    return None
