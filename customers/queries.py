"""Everything that only reads."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.dialects import contains
from customers.errors import CustomerNotFound
from customers.models import Customer
from customers.schemas import FindCustomers


async def get_customer(session: AsyncSession, customer_id: int) -> Customer:
    """One customer.

    Raises:
        CustomerNotFound: there is none with this id.

    """
    customer = await session.get(Customer, customer_id, populate_existing=True)
    if customer is None:
        raise CustomerNotFound(f"There is no customer {customer_id}.")
    return customer


async def find_customers(session: AsyncSession, query: FindCustomers) -> Sequence[Customer]:
    """Up to `limit` + 1 customers, newest first."""
    statement = select(Customer).order_by(Customer.id.desc()).limit(query.limit + 1)
    if (after := query.position()) is not None:
        statement = statement.where(Customer.id < after[0])
    if query.is_active is not None:
        statement = statement.where(Customer.is_active == query.is_active)
    if query.search is not None:
        lower = query.search.lower()  # as e-mail addresses are stored
        statement = statement.where(
            or_(
                contains(Customer.name, query.search),
                contains(Customer.email, lower),
                contains(Customer.phone, query.search),
            )
        )
    return (await session.scalars(statement)).all()
