"""What a valid request is beyond its schema. Loaded by Schemathesis, which calls it before it sends.

Only requests that are meant to be valid are put right, and only where JSON Schema has no words for the
rule. What is meant to be refused is sent as it is.
"""

from typing import Any
from uuid import uuid4

import schemathesis
from hypothesis import strategies

# The format also has addresses in domains that nobody can own, such as `.test`; those are refused on purpose.
_DOMAINS = strategies.sampled_from(["acme.com", "sub.acme-supplies.co.uk", "a.io", "xn--bcher-kva.de"])
schemathesis.openapi.format("email", strategies.emails(domains=_DOMAINS))


_KEY_REQUIRED = ("/create-and-confirm-order", "/confirm")


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: "schemathesis.Case[Any]", _kwargs: dict[str, Any]
) -> None:
    """Put a request right that is meant to be valid."""
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    if case.query:
        # A cursor is what an answer said, for the same filters; nobody can make one up.
        case.query.pop("cursor", None)
    if isinstance(case.body, dict):
        case.body = _body(case.body)
        # Where a key is required it may come in either place; two that differ are refused.
        if case.body.get("idempotency_key") is not None:
            case.headers.pop("Idempotency-Key", None)
        elif case.path.endswith(_KEY_REQUIRED):
            case.headers.setdefault("Idempotency-Key", uuid4().hex)


def _body(body: dict[str, Any]) -> dict[str, Any]:
    # For JSON Schema 2.0 is an integer. We refuse it: who counts in floats loses units above 2^53.
    plain = {name: _whole(value) for name, value in body.items()}
    if isinstance(items := plain.get("items"), list):
        # The lines of a product are merged, and together have the limit of one line.
        lines = [{name: _whole(value) for name, value in item.items()} for item in items]
        plain["items"] = list({line["product_id"]: line for line in lines}.values())
    return plain


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
