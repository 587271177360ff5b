"""The network of the campaign: a proxy between every two parts that talk to each other."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from dev.mariadb import Server
from dev.ports import HOST
from dev.stack import Stack
from tests.faults.proxy import NONE, Proxy, proxy, to

CLIENT = "client"
DATABASE = "database"
CALLS = {"orchestrator": ("customers", "orders"), "orders": ("customers",), "customers": ()}
PAIRS = (
    (CLIENT, "orchestrator"),
    *((caller, callee) for caller, callees in CALLS.items() for callee in callees),
    *((caller, DATABASE) for caller in CALLS),
)


class Network:
    """The links by their two ends, the one that opens connections first."""

    def __init__(self, links: Mapping[tuple[str, str], Proxy], server: Server) -> None:
        self.links = links
        self._server = server

    def url(self, caller: str, callee: str) -> str:
        """Where `caller` finds a service."""
        return f"http://{HOST}:{self.links[caller, callee].port}"

    def database_url(self, caller: str, schema: str) -> str:
        """Where `caller` finds the database."""
        return f"mysql://root@{HOST}:{self.links[caller, DATABASE].port}/{schema}"

    def peers(self, caller: str) -> dict[str, str]:
        """The variables that tell a service where its peers are."""
        return {f"{callee.upper()}_API_BASE": self.url(caller, callee) for callee in CALLS[caller]}

    def to(self, callee: str) -> Iterator[Proxy]:
        """All links to this part."""
        return (link for ends, link in self.links.items() if ends[1] == callee)

    def connect(self, services: Stack) -> None:
        """Lead every link to its part, without faults."""
        ports = {service.name: service.port for service in services} | {DATABASE: self._server.port}
        for (_, callee), link in self.links.items():
            link.target, link.faults = to(ports[callee]), NONE


@asynccontextmanager
async def network(server: Server) -> AsyncIterator[Network]:
    """Run the links until the block ends; `connect` has to tell those to services where they lead."""
    async with AsyncExitStack() as opened:
        links = {
            ends: await opened.enter_async_context(proxy("-".join(ends), to(server.port), seed=0))
            for ends in PAIRS
        }
        yield Network(links, server)
