import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from dev import debian
from dev.debian import ProgramMissing
from dev.mariadb import Server, ServerFailed, private_server
from tests.databases import ROOT

ENDLESS = """
import sys, time
from pathlib import Path
from dev.mariadb import private_server
with private_server(Path(sys.argv[1])) as server:
    print(server.port, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_server(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


def test_a_server_that_is_killed_keeps_what_was_committed(server: Server) -> None:
    server.create_database("kept")
    server.execute("CREATE TABLE kept.t (n INT)")
    server.execute("INSERT INTO kept.t VALUES (7)")
    port = server.port

    server.kill()
    server.start()

    assert server.execute("SELECT n FROM kept.t") == "7\n"
    assert server.port == port


def test_a_server_can_be_stopped_and_started_again(server: Server) -> None:
    server.create_database("again")

    server.stop()
    server.start()
    server.drop_database("again")

    assert "again" not in server.execute("SHOW DATABASES").split()


def test_a_server_reads_no_configuration_and_listens_on_this_machine_only(server: Server) -> None:
    assert server.execute("SELECT @@bind_address, @@innodb_flush_log_at_trx_commit") == "127.0.0.1\t1\n"
    assert server.url("orders") == f"mysql://root@127.0.0.1:{server.port}/orders"


def test_a_port_that_another_server_has_is_not_taken_for_ours(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path, server.port)

    with pytest.raises(ServerFailed, match="mariadbd did not start"):
        other.start()


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", ENDLESS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip().isdigit()
        pid = int((tmp_path / "data" / "server.pid").read_text())
        parent.send_signal(signal.SIGKILL)

    for _ in range(3000):
        if not _runs(pid):
            break
        sleep(0.01)
    assert not _runs(pid)


def test_without_mariadb_a_user_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(debian, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with (
        pytest.raises(
            ProgramMissing,
            match=r"mariadbd.* not found: sudo apt-get install mariadb-server-core mariadb-client-core",
        ),
        private_server(tmp_path),
    ):
        pass


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie that waits for its parent."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
