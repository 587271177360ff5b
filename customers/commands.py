"""Everything that changes state. Each command is given a session inside a transaction."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import dialects
from chassis.database import changed
from chassis.errors import VersionMismatch
from customers import queries
from customers.errors import EmailTaken
from customers.models import Customer
from customers.schemas import CreateCustomer, UpdateCustomer


async def create_customer(session: AsyncSession, body: CreateCustomer) -> Customer:
    """Add a customer; the UNIQUE key on the e-mail decides between two at once.

    Raises:
        EmailTaken: another customer has the e-mail address.

    """
    now = dialects.now()
    customer = Customer(**body.model_dump(), created_at=now, updated_at=now)
    session.add(customer)
    try:
        await session.flush()
    except IntegrityError as error:
        raise _refused(error) from error
    await session.refresh(customer)
    return customer


async def update_customer(
    session: AsyncSession, customer_id: int, body: UpdateCustomer, versions: frozenset[int] | None
) -> Customer:
    """Change the given fields if the customer is still at one of `versions` (None allows any).

    The version is compared in the UPDATE itself, so of two changes to one version one wins.

    Raises:
        CustomerNotFound, VersionMismatch, EmailTaken: nothing was changed.

    """
    return await _change(session, customer_id, body.model_dump(exclude_unset=True), versions)


async def deactivate_customer(session: AsyncSession, customer_id: int) -> Customer:
    """Let the customer order no more; doing it again changes nothing.

    Raises:
        CustomerNotFound: there is none with this id.

    """
    customer = await queries.get_customer(session, customer_id)
    if not customer.is_active:
        return customer
    return await _change(session, customer_id, {"is_active": False}, None)


async def _change(
    session: AsyncSession, customer_id: int, values: dict[str, Any], versions: frozenset[int] | None
) -> Customer:
    statement = (
        update(Customer)
        .where(Customer.id == customer_id)
        .values(**values, version=Customer.version + 1, updated_at=dialects.now())
    )
    if versions is not None:
        statement = statement.where(Customer.version.in_(versions))
    try:
        found = await changed(session, statement)
    except IntegrityError as error:
        raise _refused(error) from error
    customer = await queries.get_customer(session, customer_id)
    if not found:
        raise VersionMismatch(f"Customer {customer_id} is at version {customer.version} by now.")
    return customer


def _refused(error: IntegrityError) -> Exception:
    return EmailTaken("Another customer has this e-mail address.") if dialects.is_duplicate(error) else error
