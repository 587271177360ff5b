"""Free ports of this machine, for servers that are killed and started again on the same port.

A port is reserved by holding the UDP port of the same number. None of our servers speaks UDP, two
processes never hold one at once, and the kernel takes it from a process that dies. So runs that know
nothing of each other (two `make demo`, the workers of `make test`) do not get in each other's way.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
# Below the ports that the kernel hands to outgoing connections: those come and go at any time, and
# a server that starts again wants its port back.
_FREE_PORTS = range(20_000, 32_000)


@contextmanager
def reserved(*preferred: int) -> Iterator[int]:
    """A port that is free, and ours until the block ends: the first of the preferred ones, or any."""
    for port in (*preferred, *random.sample(_FREE_PORTS, len(_FREE_PORTS))):
        with socket.socket(type=socket.SOCK_DGRAM) as holder:
            if _binds(holder, port) and is_free(port):
                yield port
                return
    raise OSError(f"no port of {_FREE_PORTS} is free")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        return _binds(probe, port)


def _binds(to_bind: socket.socket, port: int) -> bool:
    try:
        to_bind.bind((HOST, port))
    except OSError:
        return False
    return True
