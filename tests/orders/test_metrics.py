from chassis import dialects
from chassis.errors import PeerProblem, Problem
from orders import commands, handlers
from orders.metrics import REFUSALS
from tests.observed import Sample
from tests.orders.shop import Shop


def test_every_refusal_by_a_rule_is_counted_from_zero() -> None:
    declared: set[type[Problem]] = set()
    for operation in handlers.routes.operations:
        if operation.method == "POST":
            declared |= set(operation.refuses)

    by_rules = {problem for problem in declared if not issubclass(problem, PeerProblem)}
    assert {
        problem for problem in by_rules if problem.__name__ not in ("CustomerNotFound", "CustomerInactive")
    } == (set(REFUSALS))


async def test_reservations_that_ran_out_are_counted_once_they_are_released(shop: Shop) -> None:
    expired = Sample("b2b_orders_total", outcome="expired", reason="")
    for _ in range(2):
        order_id = await shop.created({await shop.product(): 1})
        await shop.set_order(order_id, expires_at=dialects.now())

    await commands.expire_all(shop.database)
    await commands.expire_all(shop.database)

    assert expired.moved == 2
