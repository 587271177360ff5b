"""In whose name work is done: `issuer subject` of an access token, or `anonymous`.

It belongs to the current task, like the correlation id, so that it reaches keys and rows without being
handed from function to function. It may be an e-mail address: no span has it, and log lines have the
first digits of its digest.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from urllib.parse import quote, unquote

ANONYMOUS = "anonymous"
SYSTEM = "system"
"""Who does what a service does by itself."""
HEADER = "X-Principal"
"""What a peer with the service token says in whose name it calls."""
MAX_PART = 255
"""Characters that an issuer or a subject may have."""
MAX_LENGTH = 2 * MAX_PART + 1
TOLD_LENGTH = 16
"""Hexadecimal digits in a log line: 64 bits, so that two principals are not taken for one."""
_current: ContextVar[str] = ContextVar("principal", default=ANONYMOUS)


def named(issuer: str, subject: str) -> str:
    """The principal that this issuer knows by this subject. An issuer has no spaces.

    Raises:
        ValueError: the subject is empty, too long or not printable.

    """
    if not 1 <= len(subject) <= MAX_PART or not subject.isprintable() or subject.strip() != subject:
        raise ValueError("no usable subject")
    return f"{issuer} {subject}"


def current() -> str:
    """The principal of the current task."""
    return _current.get()


@contextmanager
def acting(principal: str) -> Iterator[None]:
    """Let the block act in the name of this principal."""
    token = _current.set(principal)
    try:
        yield
    finally:
        _current.reset(token)


def scope_of(principal: str) -> str:
    """What stands for the principal where its name would be too long, or nobody's business."""
    return principal if principal == ANONYMOUS else hashlib.sha256(principal.encode()).hexdigest()


@lru_cache(maxsize=1024)
def told(principal: str) -> dict[str, str]:
    """What a log line says of the principal: enough to find what else it did, not who it is."""
    return {} if principal == ANONYMOUS else {"principal": scope_of(principal)[:TOLD_LENGTH]}


def stated(principal: str | None) -> dict[str, str]:
    """The header that tells a peer in whose name it is called."""
    return {} if principal in (None, ANONYMOUS) else {HEADER: quote(principal, safe=":/@ ")}


def parse(header: str) -> str:
    """The principal in that header.

    Raises:
        ValueError: there is none.

    """
    principal = unquote(header, errors="strict")
    issuer, _, subject = principal.partition(" ")
    if not header.isascii() or not re.fullmatch(rf"\S{{1,{MAX_PART}}}", issuer):
        raise ValueError("no usable issuer")
    return named(issuer, subject)
