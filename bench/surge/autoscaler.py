"""The algorithm of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2), as its controller has it.

A round, every 15 s, has three parts: how many replicas the metric asks for (`by_utilization` for CPU as a
part of the request; `by_average` for an external metric per pod, which is what KEDA feeds), what was asked
for lately (stabilization), and how fast the number may change (policies). What the controller does about
pods of which it has no metric, or which are not ready yet, is in `by_utilization`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SYNC_SECONDS = 15
"""Between two rounds of the controller."""
TOLERANCE = 0.1
"""Ratios of measured to wanted that are this near to 1 change nothing."""
_EPSILON = 1e-9
"""The controller counts in whole thousandths of a unit, this in floats: 0.1 and 0.2 are not to be more than
0.3."""


@dataclass(frozen=True, slots=True)
class Policy:
    """So many pods, or percent of the pods, within a period of seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How fast the number may change in one direction."""

    window: float
    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"


UP = Rules(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15)))
DOWN = Rules(300, (Policy("Percent", 100, 15),))
"""The rules of who says nothing."""


def rules(spec: dict[str, Any] | None, default: Rules) -> Rules:
    """The rules of `behavior.scaleUp` or `.scaleDown`."""
    spec = spec or {}
    policies = tuple(
        Policy(policy["type"], policy["value"], policy["periodSeconds"])
        for policy in spec.get("policies") or ()
    )
    return Rules(
        spec.get("stabilizationWindowSeconds", default.window),
        policies or default.policies,
        spec.get("selectPolicy", default.select),
    )


def by_utilization(  # noqa: PLR0913 - three kinds of pods, and what is wanted of them
    used: Sequence[float], *, starting: int = 0, missing: int = 0, current: int, request: float, target: int
) -> int:
    """The replicas that the CPU asks for.

    `used` are the cores of each pod with a metric that counts. `starting` pods are not ready, or not for
    long enough, `missing` ones have no metric yet. When more pods are wanted, both count as idle; when
    fewer are, missing ones count as fully used, and starting ones not at all.
    """

    def ratio(pods: Sequence[float]) -> float:
        return int(100 * sum(pods) / (request * len(pods)) + _EPSILON) / target  # its percent are whole

    if not used:
        return current
    first = ratio(used)
    if not missing and not (starting and first > 1):
        return current if _is_near_enough(first) else math.ceil(first * len(used) - _EPSILON)
    if first > 1:
        everyone = [*used, *[0.0] * (missing + starting)]
    else:
        everyone = [*used, *[request * max(100, target) / 100] * missing]
    again = ratio(everyone)
    if _is_near_enough(again) or (first < 1) != (again < 1):
        return current
    wanted = math.ceil(again * len(everyone) - _EPSILON)
    return min(current, wanted) if again < 1 else max(current, wanted)


def by_average(total: float, *, current: int, target: float) -> int:
    """The replicas that a metric over all pods asks for, of which each pod is to have `target`."""
    if _is_near_enough(total / (target * current)):
        return current
    return math.ceil(total / target - _EPSILON)


def _is_near_enough(ratio: float) -> bool:
    return abs(1 - ratio) <= TOLERANCE + _EPSILON


@dataclass(slots=True)
class Autoscaler:
    """One HorizontalPodAutoscaler: what it was asked for and what it did, with times in seconds."""

    minimum: int
    maximum: int
    up: Rules = UP
    down: Rules = DOWN
    asked: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, wanted: int) -> int:
        """The replicas there are to be, of so many that there are and so many that the metric asks for."""
        stable = self._stabilized(now, current, wanted)
        if stable > current:
            decided = min(stable, self.maximum, self._up_to(now, current))
        elif stable < current:
            decided = max(stable, self.minimum, self._down_to(now, current))
        else:
            decided = current
        decided = min(max(decided, self.minimum), self.maximum)
        if decided != current:
            self.changes.append((now, decided - current))
        return decided

    def _stabilized(self, now: float, current: int, wanted: int) -> int:
        """The least that was asked for within the window of going up, the most within that of down."""
        longest = max(self.up.window, self.down.window)
        known = self.asked or [(now, current)]
        self.asked = [(at, count) for at, count in known if now - at < longest] + [(now, wanted)]

        def within(window: float) -> list[int]:
            return [count for at, count in self.asked if now - at < window] or [wanted]

        least, most = min(within(self.up.window)), max(within(self.down.window))
        return min(max(current, least), most)

    def _up_to(self, now: float, current: int) -> int:
        if self.up.select == "Disabled":
            return current
        limits = []
        for policy in self.up.policies:
            before = current - self._changed(now, policy.period)
            limits.append(
                before + policy.value
                if policy.kind == "Pods"
                else math.ceil(before * (100 + policy.value) / 100)
            )
        return max(current, max(limits) if self.up.select == "Max" else min(limits))

    def _down_to(self, now: float, current: int) -> int:
        if self.down.select == "Disabled":
            return current
        limits = []
        for policy in self.down.policies:
            before = current - self._changed(now, policy.period)
            limits.append(
                before - policy.value if policy.kind == "Pods" else before * (100 - policy.value) // 100
            )
        return min(current, min(limits) if self.down.select == "Max" else max(limits))

    def _changed(self, now: float, period: float) -> int:
        """The pods that were added within the last so many seconds, less those that were taken away."""
        return sum(by for at, by in self.changes if now - at < period)
