"""Two transactions in every order of their statements, on MariaDB.

Each test plays all schedules of two actors, compares how they end with how they may, and how many there were
with how many there must be: a test that plays fewer is red. The numbers are printed after the tests.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.errors import Problem
from orders import commands
from orders.commands import Cancellation, NewOrder
from orders.models import Order, OrderItem, Product, StockMovement
from tests.observed import Sample
from tests.orders.schedules import Actor, Play, Stage, Work, meetings, path
from tests.orders.shop import Level, OpenShop, Shop

pytestmark = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)

HOUR = timedelta(hours=1)
# Nothing but the schedule may decide who goes on: no time-out of a slow machine, no job in the background.
SETTINGS = {"db_lock_timeout": 50, "db_timeout": 60, "db_pool_timeout": 60, "expire_every": 86_400}
RETRIES = ("deadlock", "lock_timeout", "record_changed", "stale", "duplicate", "repaired")
LOCKS = {
    "order": r"FROM orders .* FOR UPDATE",
    "product": r"FROM products .* FOR UPDATE",
    "moved": r"^UPDATE orders\b",
}


class Ground(NamedTuple):
    """What the two of one play work on."""

    products: Sequence[int]
    orders: Sequence[int]


class End(NamedTuple):
    """How a play can end: what the two were told; the orders; the first product and what happened to it."""

    told: tuple[Any, Any]
    orders: tuple[str, ...]
    level: Level
    ledger: tuple[str, ...]


Step = Callable[[Shop, Ground], Awaitable[Any]]
Command = Callable[[AsyncSession, Shop, Ground], Awaitable[list[Order | Problem]]]


class Arena:
    """Two replicas, each an actor, and a third that prepares the ground and looks at what is left."""

    def __init__(self, shop: Shop, replicas: list[Shop], actors: list[Actor]) -> None:
        self.shop = shop
        self.replicas = replicas
        self.actors = actors
        self.stage = Stage(actors, shop.database)
        self.schedules = 0

    async def meet(
        self, first: Step, second: Step, *quantities: int, products: int = 1, batch: int = 50
    ) -> set[End]:
        """Play every schedule of the two; return how they ended.

        Each play has new products of 10 units, and orders of so many units of the first of them. They are
        put into the database in batches.
        """
        unused: list[Ground] = []
        used: list[Ground] = []

        async def prepare() -> list[Work]:
            if not unused:
                unused.extend(await self._grounds(batch, quantities, products))
            used.append(ground := unused.pop())
            return [lambda: first(self.replicas[0], ground), lambda: second(self.replicas[1], ground)]

        plays = [play async for play in self.stage.every_schedule(prepare)]
        self.schedules = len(plays)
        return await self._ends(used, plays)

    async def path(self, step: Step, *quantities: int, products: int = 1) -> list[str | None]:
        """The locks that the step takes, statement by statement, when nobody disturbs it."""
        [ground] = await self._grounds(1, quantities, products)
        await self.stage.play([lambda: step(self.replicas[0], ground)], [])
        return path(self.actors[0].statements, **LOCKS)

    async def later(self, actor: int, by: timedelta) -> None:
        """Let an actor's clock be so much later than it is."""
        clock = f"SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + {by.total_seconds()}"
        async with self.actors[actor].database.read() as session:
            await session.execute(text(clock))

    async def _grounds(self, count: int, quantities: Sequence[int], products: int) -> list[Ground]:
        ids = await self.shop.products(count * products)
        batches = [ids[first : first + products] for first in range(0, len(ids), products)]
        requests = [
            NewOrder(self.shop.customer_id, {batch[0]: qty}, None, HOUR)
            for batch in batches
            for qty in quantities
        ]
        made = await self.shop.database.transact(lambda session: commands.create_orders(session, requests))
        orders = iter([order.id for order in made if isinstance(order, Order)])
        return [Ground(batch, list(itertools.islice(orders, len(quantities)))) for batch in batches]

    async def _ends(self, grounds: list[Ground], plays: list[Play]) -> set[End]:
        of_orders = (
            select(OrderItem.product_id, Order.status)
            .join(Order, Order.id == OrderItem.order_id)
            .order_by(Order.id)
        )
        of_ledger = select(StockMovement.product_id, StockMovement.kind).order_by(StockMovement.id)
        async with self.shop.database.read() as session:
            orders = (await session.execute(of_orders)).all()
            ledger = (await session.execute(of_ledger)).all()
            products = {product.id: product for product in await session.scalars(select(Product))}
        return {
            End(
                play.outcomes,
                tuple(status for product, status in orders if product == ground.products[0]),
                Level(products[ground.products[0]].stock, products[ground.products[0]].reserved),
                tuple(kind for product, kind in ledger if product == ground.products[0]),
            )
            for ground, play in zip(grounds, plays, strict=True)
        }


@pytest.fixture
async def arena(open_shop: OpenShop, record_property: Callable[[str, object], None]) -> AsyncIterator[Arena]:
    """An arena in which no transaction had to begin again, and whose books are in order at the end."""
    retries = {error: Sample("b2b_transaction_retries_total", error=error) for error in RETRIES}
    shop = await open_shop(**SETTINGS)
    replicas = [await open_shop(**SETTINGS, db_pool_size=1) for _ in range(2)]
    actors = []
    for name, replica in zip("AB", replicas, strict=True):
        async with replica.database.read() as session:
            connection_id = (await session.execute(text("SELECT CONNECTION_ID()"))).scalar_one()
        actors.append(Actor(name, replica.database, connection_id))
    arena = Arena(shop, replicas, actors)
    yield arena
    record_property("schedules", arena.schedules)
    assert {error: sample.moved for error, sample in retries.items()} == dict.fromkeys(RETRIES, 0)
    assert await shop.discrepancies() == []


# --- what actors do -----------------------------------------------------------------------------


def told_of(command: Command) -> Step:
    """A command as one transaction; returns the status of its order, or the code of what refuses it."""

    async def step(shop: Shop, ground: Ground) -> str:
        [outcome] = await shop.database.transact(lambda session: command(session, shop, ground))
        return outcome.code if isinstance(outcome, Problem) else str(outcome.status)

    return step


def creating(products: slice, qty: int) -> Step:
    """The creation of an order of so many units of each of these products, in this order."""
    return told_of(
        lambda session, shop, ground: commands.create_orders(
            session, [NewOrder(shop.customer_id, dict.fromkeys(ground.products[products], qty), None, HOUR)]
        )
    )


def confirming(number: int) -> Step:
    return told_of(lambda session, _, ground: commands.confirm_orders(session, [ground.orders[number]]))


def canceling(number: int) -> Step:
    return told_of(
        lambda session, _, ground: commands.cancel_orders(
            session, [Cancellation(ground.orders[number], None, HOUR)]
        )
    )


async def expiring(shop: Shop, _ground: Ground) -> int:
    """A round of the job; returns how many orders it canceled."""
    return await shop.database.transact(commands.expire_orders)


# --- one order ----------------------------------------------------------------------------------


async def test_of_two_confirmations_of_an_order_one_sells_its_units(arena: Arena) -> None:
    ends = await arena.meet(confirming(0), confirming(0), 3)

    sold = (("CONFIRMED",), Level(stock=7, reserved=0), ("initial", "reserve", "sale"))
    assert ends == {
        End(("CONFIRMED", "order.not_confirmable"), *sold),
        End(("order.not_confirmable", "CONFIRMED"), *sold),
    }
    confirm = await arena.path(confirming(0), 3)
    assert arena.schedules == meetings(confirm, confirm) == 16


async def test_an_order_that_is_confirmed_and_canceled_ends_canceled_with_its_units_back(
    arena: Arena,
) -> None:
    ends = await arena.meet(confirming(0), canceling(0), 3)

    back = (("CANCELED",), Level(stock=10, reserved=0))
    assert ends == {
        End(("CONFIRMED", "CANCELED"), *back, ("initial", "reserve", "sale", "return")),
        End(("order.not_confirmable", "CANCELED"), *back, ("initial", "reserve", "release")),
    }
    confirm, cancel = await arena.path(confirming(0), 3), await arena.path(canceling(0), 3)
    assert arena.schedules == meetings(confirm, cancel) == 16


async def test_of_two_cancellations_of_an_order_one_releases_its_units(arena: Arena) -> None:
    ends = await arena.meet(canceling(0), canceling(0), 3)

    released = (("CANCELED",), Level(stock=10, reserved=0), ("initial", "reserve", "release"))
    assert ends == {End(("CANCELED", "CANCELED"), *released)}
    cancel = await arena.path(canceling(0), 3)
    assert arena.schedules == meetings(cancel, cancel) == 16


async def test_a_reservation_that_runs_out_is_either_sold_or_released(arena: Arena) -> None:
    confirm = await arena.path(confirming(0), 3)
    await arena.later(0, 2 * HOUR)

    ends = await arena.meet(expiring, confirming(0), 3, batch=1)

    assert ends == {
        End(
            (1, "order.not_confirmable"),
            ("CANCELED",),
            Level(stock=10, reserved=0),
            ("initial", "reserve", "release"),
        ),
        End((0, "CONFIRMED"), ("CONFIRMED",), Level(stock=7, reserved=0), ("initial", "reserve", "sale")),
    }
    expire = await arena.path(expiring, 3)
    # When the confirmation is first, the job skips the order, but keeps its entry in an index until COMMIT,
    # for which the confirmation's UPDATE of the order then waits. `sent` is what it sent when the job looks.
    before_update, all_sent = confirm.index("moved"), len(confirm)
    skipped = sum(
        (before_update + 1 if sent <= before_update else all_sent) - sent + 1
        for sent in range(1, all_sent + 1)
    )
    assert arena.schedules == meetings(expire, confirm, sent=(1, 0)) + skipped == 35


# --- one product --------------------------------------------------------------------------------


async def test_two_orders_of_one_product_are_both_confirmed(arena: Arena) -> None:
    ends = await arena.meet(confirming(0), confirming(1), 3, 4)

    assert ends == {
        End(
            ("CONFIRMED", "CONFIRMED"),
            ("CONFIRMED", "CONFIRMED"),
            Level(stock=3, reserved=0),
            ("initial", "reserve", "reserve", "sale", "sale"),
        )
    }
    confirm = await arena.path(confirming(0), 3, 4)
    other = [lock if lock == "product" else "" for lock in confirm]
    assert arena.schedules == meetings(confirm, other) == 310


async def test_the_last_units_are_reserved_once(arena: Arena) -> None:
    ends = await arena.meet(creating(slice(1), 10), creating(slice(1), 10))

    reserved = (("CREATED",), Level(stock=10, reserved=10), ("initial", "reserve"))
    assert ends == {
        End(("CREATED", "stock.insufficient"), *reserved),
        End(("stock.insufficient", "CREATED"), *reserved),
    }
    create = await arena.path(creating(slice(1), 10))
    assert arena.schedules == meetings(create, create) == 14


async def test_baskets_that_cross_are_both_ordered(arena: Arena) -> None:
    ends = await arena.meet(creating(slice(2), 5), creating(slice(None, None, -1), 5), products=2)

    assert ends == {
        End(
            ("CREATED", "CREATED"),
            ("CREATED", "CREATED"),
            Level(stock=10, reserved=10),
            ("initial", "reserve", "reserve"),
        )
    }
    create = await arena.path(creating(slice(2), 5), products=2)
    assert arena.schedules == meetings(create, create) == 14


async def test_units_of_a_canceled_order_are_there_for_the_next_or_not_yet(arena: Arena) -> None:
    ends = await arena.meet(canceling(0), creating(slice(1), 10), 3)

    assert ends == {
        End(
            ("CANCELED", "CREATED"),
            ("CANCELED", "CREATED"),
            Level(stock=10, reserved=10),
            ("initial", "reserve", "release", "reserve"),
        ),
        End(
            ("CANCELED", "stock.insufficient"),
            ("CANCELED",),
            Level(stock=10, reserved=0),
            ("initial", "reserve", "release"),
        ),
    }
    cancel, create = await arena.path(canceling(0), 3), await arena.path(creating(slice(1), 10), 3)
    assert arena.schedules == meetings(cancel, create) == 25
