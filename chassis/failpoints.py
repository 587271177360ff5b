"""Places where a process can be told to fail, so that tests see what happens then.

    FAILPOINTS="create_order.unread=kill#3, confirm_order.before=wait(0.5)"

A service declares its places as Failpoints and passes them with `await PLACE()`, which costs a look at
one attribute until `arm` is called with the setting FAILPOINTS. The setting is refused with the other
bad settings when a place or an action is not known, and always when ENVIRONMENT is `production`.

    kill        the process ends at once, as in a crash (SIGKILL)
    stop        the process stands still until somebody continues it (SIGSTOP)
    raise       an exception that nobody foresees
    wait(0.5)   so many seconds go by, for this request or saga only

`#3` lets it happen the third time that the process passes the place, and only then; without it, every
time.
"""

import asyncio
import os
import re
import signal
from dataclasses import dataclass

import structlog

_MAX_WAIT_SECONDS = 3_600
_SYNTAX = re.compile(
    r"(?P<name>[a-z_.]+)=(?P<action>kill|stop|raise|wait\((?P<seconds>\d{1,4}(\.\d{1,6})?)\))(#(?P<nth>[1-9]\d{0,5}))?"
)
_known: "dict[str, Failpoint]" = {}
log = structlog.get_logger(__name__)


class FailpointReached(Exception):  # noqa: N818 - no error of ours
    """What the action `raise` raises."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen, the `nth` time or always; `seconds` belong to wait."""

    action: str
    seconds: float = 0.0
    nth: int | None = None


class Failpoint:
    """A named place in the code; `means` says what has and has not happened there.

    A declared place is known to `parse` and `arm`.
    """

    def __init__(self, name: str, means: str) -> None:
        self.name = name
        self.means = means
        self.plan: Plan | None = None
        self._passed = 0
        _known[name] = self

    async def __call__(self) -> None:
        """Pass the place."""
        if self.plan is not None:
            await self._act(self.plan)

    async def _act(self, plan: Plan) -> None:
        self._passed += 1
        if plan.nth not in (None, self._passed):
            return
        log.warning("failpoint", failpoint=self.name, action=plan.action)
        match plan.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise FailpointReached(self.name)
            case _:
                await asyncio.sleep(plan.seconds)


def known() -> list[str]:
    """The names of the places that this process has."""
    return sorted(_known)


def parse(value: str) -> dict[str, Plan]:
    """What FAILPOINTS says, by place.

    Raises:
        ValueError: it names what is not known, or is written otherwise than above.

    """
    plans = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        found = _SYNTAX.fullmatch(part)
        if found is None:
            raise ValueError(f"wants place=kill|stop|raise|wait(seconds), with #n for the n-th time: {part}")
        if found["name"] not in _known:
            raise ValueError(f"{found['name']} is none of {', '.join(known()) or 'no places'}")
        seconds, nth = float(found["seconds"] or 0), found["nth"]
        action = found["action"].partition("(")[0]
        plans[found["name"]] = Plan(action, min(seconds, _MAX_WAIT_SECONDS), int(nth) if nth else None)
    return plans


def arm(value: str) -> None:
    """Let happen what FAILPOINTS says, and nothing at all other places.

    Raises:
        ValueError: see `parse`.

    """
    plans = parse(value)
    for name, place in _known.items():
        place.plan = plans.get(name)
        place._passed = 0  # noqa: SLF001 - of this module
    if plans:
        log.warning("this process fails on purpose", failpoints=value)
