"""Every operation of the three services says who may call it; the list is in one place to be read."""

import pytest

from chassis.routes import Operation
from dev.docs import SERVICES

OPERATIONS = [
    pytest.param(service, operation, id=f"{operation.method} {operation.path}")
    for service, (_, groups) in SERVICES.items()
    for group in groups
    for operation in group.operations
]
SCOPES = {
    "customers": {"customers:read", "customers:write"},
    "orders": {"products:read", "products:write", "orders:read", "orders:write"},
    "orchestrator": {"sagas:read", "sagas:write"},
}
OF_PEERS = {
    "POST /admin/orders/create-order",
    "POST /admin/orders/{order_id}/confirm",
    "POST /admin/orders/{order_id}/cancel",
    "GET /admin/orders/find-all",
    "GET /admin/orders/find-one/{order_id}",
    "GET /admin/orders/{order_id}/movements",
}
INTERNAL = {"GET /admin/customers/internal/customers/{customer_id}"}


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_an_operation_wants_the_scope_of_what_it_does(service: str, operation: Operation) -> None:
    name = f"{operation.method} {operation.path}"

    assert not operation.public
    assert operation.internal is (name in INTERNAL)
    assert operation.peers is (name in OF_PEERS)
    if not operation.internal:
        assert operation.scope in SCOPES[service]
        assert operation.scope.endswith(":read" if operation.method == "GET" else ":write")


def test_every_scope_is_of_some_use() -> None:
    used = {operation.values[1].scope for operation in OPERATIONS} - {""}  # type: ignore[union-attr]  # as given above

    assert used == set().union(*SCOPES.values())
