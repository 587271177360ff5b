"""What goes over the wire."""

from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field, StringConstraints

from chassis.http import Id, Schema, Timestamp, Update, View
from chassis.pagination import PageQuery

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"\S"),
    Field(examples=["ACME Corporation"]),
]
Email = Annotated[EmailStr, AfterValidator(str.lower), Field(max_length=254, examples=["ops@acme.com"])]
Phone = Annotated[str, Field(pattern=r"^\+?[0-9][0-9 ()./-]{3,30}$", examples=["+1234567890"])]


class CreateCustomer(Schema):
    """A new customer."""

    name: Name
    email: Email
    phone: Phone | None = None


class UpdateCustomer(Update):
    """The fields to change; the others stay."""

    name: Name = ""
    email: Email = ""
    phone: Phone | None = None
    is_active: bool = True


class FindCustomers(PageQuery):
    """Filters, ANDed."""

    search: Annotated[
        str | None, Field(min_length=1, max_length=200, description="part of name, e-mail or phone")
    ] = None
    is_active: Annotated[
        bool | None, Field(description="only customers that may order, or only the others")
    ] = None


class CustomerView(View):
    """A customer."""

    id: Id
    name: Name
    email: Annotated[str, Field(examples=["ops@acme.com"])]
    phone: Annotated[str | None, Field(examples=["+1234567890"])]
    is_active: bool
    created_at: Timestamp
    updated_at: Timestamp
