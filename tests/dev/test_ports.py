import socket
import subprocess
import sys

from dev.ports import HOST, is_free, reserved
from tests.databases import ROOT

RESERVE = """
import sys
from dev.ports import reserved
with reserved(int(sys.argv[1])) as port:
    print(port, flush=True)
    sys.stdin.read()
"""


def _reserve(preferred: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own command
        (sys.executable, "-c", RESERVE, str(preferred)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _told(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_port_is_reserved_by_one_process_until_it_dies() -> None:
    with reserved() as ours:
        with _reserve(ours) as other:
            assert _told(other) != ours
            other.kill()
        assert is_free(ours), "a server can still listen on it"

    with _reserve(ours) as owner:
        assert _told(owner) == ours
        with reserved(ours) as another:
            assert another != ours
        owner.kill()
    with reserved(ours) as again:
        assert again == ours


def test_a_port_that_a_server_listens_on_is_not_handed_out() -> None:
    with reserved() as port:
        pass
    with socket.socket() as server:
        server.bind((HOST, port))
        server.listen()

        with reserved(port) as other:
            assert other != port
