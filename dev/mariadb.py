"""A private MariaDB server for tests, benchmarks and crash campaigns.

It lives in a folder of its own, on a free port of 127.0.0.1, reads no configuration of the machine
and dies with the process that started it, even when that one is killed. No other server's data is
ever touched.

    with private_server(folder) as server:
        server.create_database("orders")
        DATABASE_URL=server.url("orders")
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from dev.debian import program, require, run
from dev.ports import HOST, reserved

PACKAGES = ("mariadb-server-core", "mariadb-client-core")  # the second has what mariadb-install-db needs
_PROGRAMS = ("mariadbd", "mariadb-install-db", "my_print_defaults", "mariadb")
_START_SECONDS = 60
_STOP_SECONDS = 60

_OPTIONS = (
    f"--bind-address={HOST}",
    "--socket=server.sock",  # relative to the data: a path of a socket has at most 107 bytes
    "--pid-file=server.pid",
    "--skip-name-resolve",
    "--max-connections=500",
    "--innodb-flush-log-at-trx-commit=1",  # a commit is on the disk, as in production
    "--innodb-buffer-pool-size=256M",
    "--innodb-log-file-size=64M",
    "--default-time-zone=+05:45",  # no service may depend on the server's time zone
)


class ServerFailed(Exception):  # noqa: N818 - says what the server said
    """The server did not start; the text has the end of its log."""


class Server:
    """A running server. It can be stopped, killed and started again on the same data and port.

    `options` of the command line are added to ours, `environment` to that of this process.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.host = HOST
        self.options = options
        self._environment = {**os.environ, **(environment or {})}
        self.port = port
        self._data = folder / "data"
        self._socket = self._data / "server.sock"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        run(
            "mariadb-install-db",
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--datadir={self._data}",
            f"--tmpdir={folder}",
            *_user(),
        )

    def url(self, database: str) -> str:
        """What DATABASE_URL wants."""
        return f"mysql://root@{self.host}:{self.port}/{database}"

    def create_database(self, name: str) -> None:
        """Create an empty schema."""
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")

    def drop_database(self, name: str) -> None:
        """Drop a schema, if it is there."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def execute(self, statement: str) -> str:
        """Run a statement as root; return its rows, a line each, columns parted by tabs."""
        where = ("--protocol=tcp", f"--host={self.host}", f"--port={self.port}", "--user=root")
        return run("mariadb", "--no-defaults", *where, "--batch", "--skip-column-names", "-e", statement)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerFailed: it ended, or does not answer.

        """
        # The kernel ends the server when the thread that started it ends, however that happens.
        setpriv = shutil.which("setpriv")
        tied = (setpriv, "--pdeathsig", "KILL", "--") if setpriv is not None else ()
        # A server removes the temporary tables of others that it finds in a shared folder.
        own = (f"--datadir={self._data}", f"--tmpdir={self._data.parent}", f"--port={self.port}", *_user())
        command = (*tied, program("mariadbd"), "--no-defaults", *own, *_OPTIONS, *self.options)
        self._socket.unlink(missing_ok=True)  # of a server that was killed
        with self._log.open("ab") as log:
            # In a session of its own, so that Ctrl-C ends the tests first and their database after.
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or monotonic() > deadline:
                self.kill()
                lines = self._log.read_text(errors="replace").splitlines()
                raise ServerFailed("mariadbd did not start:\n" + "\n".join(lines[-20:]))
            sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it in order, as a machine that shuts down does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still, its connections open, until it is resumed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        """Whether the server greets: a packet's header of four bytes, then its protocol version.

        Its socket in the file system comes after its port: without it, another server has the port.
        """
        if not self._socket.exists():
            return False
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as connection:
            return connection.recv(5)[4:] == b"\x0a"
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def private_server(
    folder: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server with its data in `folder`, which must not have one yet; killed at the end.

    Raises:
        ProgramMissing: there is none on this machine, and only root could install it.
        ServerFailed: it did not start.

    """
    require(_PROGRAMS, PACKAGES)
    with reserved() as port:
        server = Server(folder, port, options, environment)
        try:
            server.start()
            yield server
        finally:
            server.kill()  # nobody reads its data again


def _user() -> tuple[str, ...]:
    """MariaDB runs as root only when told so."""
    return ("--user=root",) if os.geteuid() == 0 else ()
