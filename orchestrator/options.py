"""Options that several commands have: where a service is, and the token to call it with."""

from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from chassis.auth.settings import parse_tokens
from chassis.settings import BaseUrl


def base_url(url: str, option: str) -> str:
    """The address of a service.

    Raises:
        typer.BadParameter: it is none.

    """
    try:
        address: str = TypeAdapter(BaseUrl).validate_python(url)
    except ValidationError:
        raise typer.BadParameter(f"{url!r} is no http:// or https:// address.", param_hint=option) from None
    return address


def access_token(text: str) -> str:
    """The access token in the text of a file; a ValueError if there is none."""
    return parse_tokens(text)[0]


def check_token(file: Path) -> None:
    """Look whether there is a token in the file.

    Raises:
        typer.BadParameter: there is none.

    """
    try:
        access_token(file.read_text())
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--token-file") from None
    except ValueError:
        raise typer.BadParameter(f"{file} has no access token.", param_hint="--token-file") from None
