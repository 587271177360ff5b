import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep

import pytest

from dev.debian import require
from dev.ports import HOST
from dev.stack import PORTS, ROOT
from tests.e2e.leftovers import processes_of

pytestmark = pytest.mark.xdist_group("default ports")

LAST_LINE = "Ctrl-C stops everything."


@contextmanager
def _up(folder: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """`make up` in a folder of its own, and what it prints once it is up."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        (sys.executable, "-m", "dev.up", str(folder)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            while not lines or lines[-1] != LAST_LINE:
                line = process.stdout.readline()
                assert line, "it ended: " + "\n".join(lines)
                lines.append(line.rstrip("\n"))
            yield process, "\n".join(lines)
        finally:
            process.terminate()


def _commands(printed: str) -> list[str]:
    """The curl commands, each with its continuation lines."""
    return re.findall(r"^curl (?:.*\\\n)*.*$", printed, flags=re.MULTILINE)


def _sh(command: str) -> str:
    require(["curl"], ["curl"])
    shell = ("/bin/sh", "-c", command)
    done = subprocess.run(shell, capture_output=True, text=True, check=False)  # noqa: S603 - what we printed
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_make_up_prints_works_when_it_is_pasted_into_a_shell(tmp_path: Path) -> None:
    with _up(tmp_path) as (process, printed):
        order, shortage, sagas = _commands(printed)

        first, again, short = _sh(order), _sh(order), _sh(shortage)

        assert first.startswith("HTTP/1.1 201")
        assert '"status":"CONFIRMED"' in first
        assert "Idempotent-Replayed: true" in again
        assert again.splitlines()[-1] == first.splitlines()[-1]
        assert short.startswith("HTTP/1.1 409")
        assert '"code":"stock.insufficient"' in short
        assert [saga["status"] for saga in json.loads(_sh(sagas))["data"]] == ["FAILED", "SUCCEEDED"]

        process.send_signal(signal.SIGINT)
        assert "Stopped." in process.communicate()[0]
        assert process.returncode == 0
    assert processes_of(tmp_path) == []

    with _up(tmp_path) as (process, printed):
        order, _, _ = _commands(printed)

        assert _sh(order).startswith("HTTP/1.1 201"), "the same data, and a key that is new"


def test_make_up_takes_other_ports_when_its_own_are_taken(tmp_path: Path) -> None:
    with ExitStack() as taken:
        for port in (port for pair in PORTS.values() for port in pair):
            listener = taken.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # taken by somebody else is as good
                listener.bind((HOST, port))
                listener.listen()

        with _up(tmp_path) as (_, printed):
            assert "Port 3010 is taken, so orchestrator is on" in printed
            assert _sh(_commands(printed)[0]).startswith("HTTP/1.1 201")


def test_the_services_of_a_make_up_that_is_killed_end_with_it(tmp_path: Path) -> None:
    with _up(tmp_path) as (process, _):
        assert len(processes_of(tmp_path)) == 3

        process.kill()
        process.wait()

        while processes_of(tmp_path):  # the kernel ends them
            sleep(0.01)
