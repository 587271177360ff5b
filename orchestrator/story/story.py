"""What became of an order: its sagas from the database, the order and its ledger from orders over HTTP."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.client import Peer
from chassis.database import Database
from chassis.errors import PeerProblem
from orchestrator import queries
from orchestrator.models import Saga
from orchestrator.schemas import FindSagas

MOST = 20
"""Sagas and orders that are told of, the newest ones."""
_ORDER_NUMBER = re.compile("ORD-[0-9]{8,18}")
_HEX = re.compile("[0-9a-f]{32}")
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Order:
    """An order with its history, as orders tells of it; `movements` are its lines of the ledger, in order."""

    view: dict[str, Any]
    movements: list[dict[str, Any]]


@dataclass(slots=True)
class Story:
    """What was found of one order, or of all with a correlation id; `gaps` says what was not, and why."""

    sagas: Sequence[Saga] = ()
    orders: list[Order] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not self.sagas and not self.orders

    @property
    def trace_ids(self) -> list[str]:
        """The traces that are known to belong to it, each once."""
        found = [saga.trace_id for saga in self.sagas]
        for order in self.orders:
            # Without a caller's id, the correlation id is the id of the trace that made the change.
            said = [order.view, *order.view["history"]]
            found += [each["correlation_id"] for each in said if _HEX.fullmatch(each["correlation_id"])]
        return list(dict.fromkeys(trace_id for trace_id in found if trace_id))


class Orders:
    """What orders tells of its orders, over its API and with the service token."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def find(self, **filters: str) -> list[Order]:
        """Up to MOST orders that match.

        Raises:
            PeerProblem: orders cannot be asked.

        """
        found = await self._get("/admin/orders/find-all", limit=MOST, **filters)
        return [await self.one(order["id"]) for order in found["data"]]

    async def one(self, order_id: int) -> Order:
        """One order with its history and its ledger.

        Raises:
            PeerProblem: orders cannot be asked.

        """
        view = (await self._get(f"/admin/orders/find-one/{order_id}"))["data"]
        movements: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self._get(f"/admin/orders/{order_id}/movements", limit=_PAGE, **cursor)
            movements += page["data"]
            if not page["meta"]["has_next"]:
                return Order(view, movements[::-1])
            cursor = {"cursor": page["meta"]["next_cursor"]}

    async def _get(self, path: str, **query: str | int) -> dict[str, Any]:
        answer = await self._peer.get(f"{path}?{urlencode(query)}" if query else path)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise PeerProblem(f"orders answered {answer.status} {answer.body.get('code', '')}".rstrip() + ".")
        return answer.body


async def find(database: Database, orders: Orders, about: str) -> Story:
    """Find everything about a correlation id, a trace id, a saga id or an order number.

    Raises:
        Problem: the database of the orchestrator cannot be read.

    """
    story = Story()
    if _ORDER_NUMBER.fullmatch(about):
        story.orders = await _asked(story, orders, [], order_number=about)
    async with database.read() as session:
        story.sagas = await _sagas(session, about, story.orders)
    if len(story.sagas) > MOST:
        story.sagas = story.sagas[:MOST]
        story.gaps.append(f"There are more sagas: these are the newest {MOST}.")
    if not story.orders:
        known = [saga.order_id for saga in story.sagas if saga.order_id is not None]
        whole = any(saga.order_id is None for saga in story.sagas) or not story.sagas
        ids = {saga.correlation_id for saga in story.sagas} or {about}
        # A saga that never heard of its order may have one all the same.
        filters = {"correlation_id": ids.pop()} if whole and len(ids) == 1 else {}
        story.orders = await _asked(story, orders, known, **filters)
    return story


async def _sagas(session: AsyncSession, about: str, orders: Iterable[Order]) -> Sequence[Saga]:
    for order in orders:
        of_same = FindSagas(limit=MOST, correlation_id=order.view["correlation_id"])
        found = await queries.find_sagas(session, of_same)
        return [saga for saga in found if saga.order_id in (order.view["id"], None)]
    if _HEX.fullmatch(about):
        if (saga := await session.get(Saga, about)) is not None:
            return [saga]
        if started := await queries.find_sagas(session, FindSagas(limit=MOST, trace_id=about)):
            return started
    return await queries.find_sagas(session, FindSagas(limit=MOST, correlation_id=about))


async def _asked(story: Story, orders: Orders, ids: Iterable[int], **filters: str) -> list[Order]:
    """The orders with these ids, and those that match; what cannot be asked is a gap."""
    found: dict[int, Order] = {}
    try:
        for order in await orders.find(**filters) if filters else []:
            found[order.view["id"]] = order
        for order_id in ids:
            if order_id not in found:
                found[order_id] = await orders.one(order_id)
    except PeerProblem as problem:
        what = "The order, its history and its ledger have to be asked of orders at ORDERS_API_BASE"
        story.gaps.append(f"{what}: {problem.detail}")
    return [found[order_id] for order_id in sorted(found)]
