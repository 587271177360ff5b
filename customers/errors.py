"""What the customers service refuses, and how it says so."""

from http import HTTPStatus

from chassis.errors import Problem


class CustomerNotFound(Problem):
    """No customer has this id."""

    status = HTTPStatus.NOT_FOUND
    code = "customer.not_found"
    title = "There is no such customer"


class EmailTaken(Problem):
    """E-mail addresses are unique, in their normalised form."""

    status = HTTPStatus.CONFLICT
    code = "customer.email_taken"
    title = "Another customer has this e-mail address"
