"""Our side of customers and orders: the four steps of a saga as calls."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from aiohttp import web
from pydantic import BaseModel, ValidationError

from chassis.client import HTTP, Peer, PeerAnswer
from chassis.errors import PeerBroken, PeerUnavailable
from orchestrator.errors import CustomerInactive, PeerRefusal
from orchestrator.models import Saga, Step
from orchestrator.schemas import CustomerView, OrderView
from orchestrator.settings import SETTINGS


@dataclass(frozen=True, slots=True)
class Done:
    """What a step brought, and how many attempts it took."""

    snapshot: dict[str, Any]
    attempts: int


class Peers:
    """The calls of the steps.

    Each raises a PeerRefusal when the peer refuses for good, and a PeerUnavailable, PeerTimeout or
    PeerBroken when it is worth another try later.
    """

    def __init__(self, customers: Peer, orders: Peer, service_token: str) -> None:
        self._customers = customers
        self._orders = orders
        self._headers = {"Authorization": f"Bearer {service_token}"}

    async def take(self, step: Step, saga: Saga) -> Done:
        """Take a step of the saga."""
        body: dict[str, Any] | None
        match step:
            case Step.VALIDATE_CUSTOMER:
                return await self._validate_customer(saga)
            case Step.CREATE_ORDER:
                path, body = "/admin/orders/create-order", saga.request
            case Step.CONFIRM_ORDER:
                path, body = f"/admin/orders/{saga.order_id}/confirm", None
            case Step.CANCEL_ORDER:
                path, body = f"/admin/orders/{saga.order_id}/cancel", {"reason": f"saga {saga.id}"}
        answer = await self._orders.post(path, body, key=saga.key(step), headers=self._headers)
        return Done(_data(self._orders, answer, OrderView), answer.attempts)

    async def _validate_customer(self, saga: Saga) -> Done:
        path = f"/admin/customers/internal/customers/{saga.request['customer_id']}"
        answer = await self._customers.get(path, headers=self._headers)
        customer = _data(self._customers, answer, CustomerView)
        if not answer.body["data"].get("is_active"):
            raise CustomerInactive(f"{CustomerInactive.title}.")
        return Done(customer, answer.attempts)


PEERS = web.AppKey("peers", Peers)


async def peers(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[PEERS]`; it needs `http_client` before it."""
    settings = app[SETTINGS]
    seconds = {"attempt_seconds": settings.peer_timeout, "deadline_seconds": settings.peer_deadline}
    app[PEERS] = Peers(
        Peer(app[HTTP], "customers", settings.customers_api_base, **seconds),
        Peer(app[HTTP], "orders", settings.orders_api_base, **seconds),
        settings.service_token.get_secret_value(),
    )
    yield


def _data(peer: Peer, answer: PeerAnswer, schema: type[BaseModel]) -> dict[str, Any]:
    """The resource in a successful answer, as it is kept in the saga.

    Raises:
        PeerRefusal, PeerUnavailable, PeerBroken: the answer is no success.

    """
    if answer.status >= HTTPStatus.BAD_REQUEST:
        _refuse(peer, answer)
    try:
        return schema.model_validate(answer.body["data"]).model_dump(mode="json")
    except (ValidationError, KeyError, TypeError) as error:
        raise PeerBroken(f"{peer.name} gave an answer that breaks its contract.") from error


def _refuse(peer: Peer, answer: PeerAnswer) -> NoReturn:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PeerUnavailable(f"{peer.name} refuses this service's token.")
    if not isinstance(answer.body, dict) or "code" not in answer.body:
        raise PeerBroken(f"{peer.name} refused without a problem body.")
    raise PeerRefusal.of(answer.body)
