"""Our side of customers and orders: the four steps of a saga as calls."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn

from aiohttp import web
from pydantic import ValidationError

from chassis.auth import principal
from chassis.auth.service_tokens import SERVICE_TOKENS
from chassis.client import HTTP, Peer, PeerAnswer
from chassis.errors import PeerBroken, PeerProblem, PeerUnavailable
from orchestrator import failpoints
from orchestrator.errors import CustomerInactive, OrderNotConfirmable, PeerRefusal
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

    def __init__(self, customers: Peer, orders: Peer) -> None:
        self._customers = customers
        self._orders = orders

    async def take(self, step: Step, saga: Saga) -> Done:
        """Take a step of the saga."""
        await failpoints.BEFORE[step]()
        answer = await self._call(step, saga)
        await failpoints.UNREAD[step]()
        if step == Step.CONFIRM_ORDER and _is_confirmed(answer):
            answer = await self._orders.get(f"/admin/orders/find-one/{saga.order_id}")
        try:
            return Done(_snapshot(step, answer), answer.attempts)
        except (PeerRefusal, PeerProblem) as problem:
            problem.attempts = answer.attempts
            raise

    async def _call(self, step: Step, saga: Saga) -> PeerAnswer:
        body: dict[str, Any] | None
        match step:
            case Step.VALIDATE_CUSTOMER:
                path = f"/admin/customers/internal/customers/{saga.request['customer_id']}"
                return await self._customers.get(path)
            case Step.CREATE_ORDER:
                path, body = "/admin/orders/create-order", saga.request
            case Step.CONFIRM_ORDER:
                path, body = f"/admin/orders/{saga.order_id}/confirm", None
            case Step.CANCEL_ORDER:
                path, body = f"/admin/orders/{saga.order_id}/cancel", {"reason": f"saga {saga.id}"}
        acting = principal.stated(saga.principal)
        return await self._orders.post(path, body, key=saga.key(step), headers=acting)


PEERS = web.AppKey("peers", Peers)


async def peers(app: web.Application) -> AsyncIterator[None]:
    """The context that provides `app[PEERS]`; it needs `http_client` before it."""
    settings = app[SETTINGS]
    peer = partial(
        Peer,
        app[HTTP],
        token=app[SERVICE_TOKENS].current,
        attempt_seconds=settings.peer_timeout,
        deadline_seconds=settings.peer_deadline,
    )
    app[PEERS] = Peers(
        peer("customers", settings.customers_api_base), peer("orders", settings.orders_api_base)
    )
    yield


class _Customer(CustomerView):
    is_active: bool


def _snapshot(step: Step, answer: PeerAnswer) -> dict[str, Any]:
    """The customer or the order in a successful answer, as it is kept in the saga.

    Raises:
        PeerRefusal, PeerUnavailable, PeerBroken: the answer is no success.

    """
    if answer.status >= HTTPStatus.BAD_REQUEST:
        _refuse(step, answer)
    schema = _Customer if step == Step.VALIDATE_CUSTOMER else OrderView
    try:
        found = schema.model_validate(answer.body["data"])
    except (ValidationError, KeyError) as error:
        raise PeerBroken(f"The answer to {step} breaks its contract.") from error
    if isinstance(found, _Customer) and not found.is_active:
        raise PeerRefusal.of({"code": CustomerInactive.code})
    return found.model_dump(mode="json", exclude={"is_active"})


def _is_confirmed(answer: PeerAnswer) -> bool:
    """Whether the order is confirmed already.

    Orders remembers a key for days. A saga that is taken up later confirms under a key that is
    forgotten: its order must not be canceled because it was confirmed the first time.
    """
    its_code, its_status = answer.body.get("code"), answer.body.get("order_status")
    return answer.status == HTTPStatus.CONFLICT and (its_code, its_status) == (
        OrderNotConfirmable.code,
        "CONFIRMED",
    )


def _refuse(step: Step, answer: PeerAnswer) -> NoReturn:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PeerUnavailable(f"The peer of {step} refuses this service's token.")
    if not isinstance(answer.body.get("code"), str):
        raise PeerBroken(f"The refusal of {step} is no problem body.")
    raise PeerRefusal.of(answer.body)
