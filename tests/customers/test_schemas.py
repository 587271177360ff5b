import pytest
from pydantic import ValidationError

from customers.schemas import CreateCustomer, UpdateCustomer


def _customer(**fields: object) -> CreateCustomer:
    return CreateCustomer.model_validate({"name": "ACME", "email": "ops@acme.com", **fields})


@pytest.mark.parametrize("name", ["A", " ACME \t", "x" * 200, "株式会社", "O'Brien; DROP TABLE"])
def test_a_name_is_text_without_space_around_it(name: str) -> None:
    assert _customer(name=name).name == name.strip()


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, None, 5, ["ACME"]])
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(ValidationError):
        _customer(name=name)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "acme",
        "@acme.com",
        "ops@",
        "ops@acme",
        "a b@acme.com",
        "a@acme..com",
        "x" * 250 + "@acme.com",
        None,
    ],
)
def test_what_is_no_email(email: object) -> None:
    with pytest.raises(ValidationError):
        _customer(email=email)


@pytest.mark.parametrize("phone", [None, "+1234567890", "030 123-45", "+49 (30) 1234.56/78"])
def test_a_phone_is_digits_as_people_write_them(phone: str | None) -> None:
    assert _customer(phone=phone).phone == phone


@pytest.mark.parametrize("phone", ["", "phone", "12", "+", "++12345", "1" * 40, "12345\n", 12345])
def test_what_is_no_phone(phone: object) -> None:
    with pytest.raises(ValidationError):
        _customer(phone=phone)


def test_an_update_knows_what_was_given() -> None:
    update = UpdateCustomer.model_validate({"phone": None})

    assert update.model_dump(exclude_unset=True) == {"phone": None}
