"""What the settings about callers may be. With AUTH=jwt, none of the provider may be left out."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationInfo

from chassis.auth import principal
from chassis.auth.keys import parse_keys

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a key pair: with a shared secret, whoever checks tokens could also make them."""


def parse_tokens(text: str) -> list[str]:
    """Service tokens, separated by commas or line ends.

    Raises:
        ValueError: there is none, or one that no header can carry.

    """
    tokens = [token.strip() for token in re.split(r"[,\r\n]", text) if token.strip()]
    if not tokens:
        raise ValueError("wants at least one token")
    if not all(re.fullmatch(r"[\x20-\x7e]+", token) for token in tokens):
        raise ValueError("wants tokens of visible ASCII characters")
    return tokens


def is_address(keys: str) -> bool:
    """Whether OIDC_JWKS is an address, and not a file."""
    return re.match(r"https?://[^/]", keys) is not None


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ValueError(f"wants files that can be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("wants files of text") from None


def _token_file(path: Path) -> Path:
    parse_tokens(_text_of(path))
    return path


TokenFile = Annotated[Path, AfterValidator(_token_file)]


def _only_with_jwt(value: str | None, info: ValidationInfo) -> str | None:
    auth = info.data.get("auth", "not valid")
    if auth == "jwt" and value is None:
        raise ValueError("wants a value when AUTH is jwt")
    if auth is None and value is not None:
        raise ValueError("wants AUTH to be jwt")  # it was forgotten: nothing would be checked
    return value


def _name(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{principal.MAX_PART}}}", value):
        raise ValueError(f"wants at most {principal.MAX_PART} visible ASCII characters, without spaces")
    return value


def _jwks(value: str | None, info: ValidationInfo) -> str | None:
    if value is not None and not is_address(value):
        parse_keys(_text_of(Path(value)), info.data.get("oidc_algorithms", ["RS256"]))
    return value


ProviderName = Annotated[str | None, AfterValidator(_name), AfterValidator(_only_with_jwt)]
ProviderKeys = Annotated[str | None, AfterValidator(_jwks), AfterValidator(_only_with_jwt)]
