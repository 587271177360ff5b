"""Our side of the customers service."""

from collections.abc import AsyncIterator

from aiohttp import web

from chassis.auth.service_tokens import SERVICE_TOKENS
from chassis.client import HTTP, Peer
from chassis.errors import PeerBroken, Problem
from orders.errors import CustomerInactive, CustomerNotFound, CustomersUnavailable
from orders.settings import SETTINGS


class Customers:
    """Answers whether a customer may order."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def require_active(self, customer_id: int) -> None:
        """Return if the customer may order.

        Raises:
            CustomerNotFound, CustomerInactive: it may not.
            CustomersUnavailable: that cannot be found out now.

        """
        try:
            answer = await self._peer.get(f"/admin/customers/internal/customers/{customer_id}")
        except Problem as problem:
            raise CustomersUnavailable("Whether the customer may order cannot be asked now.") from problem
        match answer.status, answer.body:
            case 200, {"data": {"is_active": True}}:
                return
            case 200, {"data": {"is_active": False}}:
                raise CustomerInactive(f"Customer {customer_id} is not active.")
            case 404, {"code": "customer.not_found"}:
                raise CustomerNotFound(f"There is no customer {customer_id}.")
            case 401, _:
                raise CustomersUnavailable("The customers service refuses this service's token.")
            case _:
                raise PeerBroken("The customers service gave an answer that is not understood.")


CUSTOMERS = web.AppKey("customers", Customers)


async def customers_client(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[CUSTOMERS]`; it needs `http_client` before it."""
    settings = app[SETTINGS]
    peer = Peer(
        app[HTTP],
        "customers",
        settings.customers_api_base,
        token=app[SERVICE_TOKENS].current,
        attempt_seconds=settings.peer_timeout,
        deadline_seconds=settings.peer_deadline,
    )
    app[CUSTOMERS] = Customers(peer)
    yield
