"""An order of a file: what it must say, and its idempotency key."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import StringConstraints, ValidationError

from orchestrator.schemas import CreateAndConfirmOrder

MAX_FAULTS = 5  # named in one message
_PLAIN = re.compile(r"[\x21-\x7e]{1,251}")


class FileOrder(CreateAndConfirmOrder):
    """The main job as a file has it: the reference stands for the idempotency key."""

    reference: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
    idempotency_key: None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order that can be tried."""

    line: int
    content: FileOrder

    @property
    def reference(self) -> str:
        """What the file calls it."""
        return self.content.reference

    @property
    def key(self) -> str:
        """The idempotency key: the same whatever file and line the reference stands in."""
        if _PLAIN.fullmatch(self.reference):
            return f"job:{self.reference}"
        return f"job-sha256:{hashlib.sha256(self.reference.encode()).hexdigest()}"

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return self.content.model_dump(exclude={"reference", "idempotency_key", "correlation_id"})


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line, or the rows of an order, that cannot be tried."""

    line: int
    reference: str | None
    fault: str


def validated(
    number: int, reference: str | None, data: object, lines: list[int] | None = None
) -> Order | BadRow:
    """What a line, or the rows at `lines`, say: an order, or why it is none."""
    try:
        return Order(number, FileOrder.model_validate(data))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        named = [f"{_place(fault['loc'], lines)}{fault['msg']}." for fault in faults[:MAX_FAULTS]]
        more = [f"And {len(faults) - MAX_FAULTS} more."] if len(faults) > MAX_FAULTS else []
        return BadRow(number, reference, " ".join(named + more).replace("Value error, ", ""))


def _place(location: tuple[int | str, ...], lines: list[int] | None) -> str:
    match location:
        case ("items", int(item), column) if lines is not None:
            return f"Line {lines[item]}, {column}: "
        case ():
            return ""
        case _:
            return f"{'.'.join(str(part) for part in location)}: "
