"""What the chart says about scaling, read from what it renders: nothing here is said twice."""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.surge.autoscaler import DOWN, UP, Rules, rules
from dev.kubernetes import program

CHART = Path(__file__).parents[2] / "charts" / "b2b-orders"
SERVICES = ("customers", "orders", "orchestrator")
_MILLI = 1000


class Unreadable(Exception):  # noqa: N818 - says what is missing
    """The chart does not render, or not what is looked for."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one service is scaled.

    `request` is in cores. `target` is percent of it, or with KEDA requests in flight per pod, averaged
    over `window` seconds. `probe` is how many seconds a pod may be up before somebody notices that it is
    ready.
    """

    minimum: int
    maximum: int
    up: Rules
    down: Rules
    request: float
    target: float
    window: float
    probe: float
    pool: int


def rendered(*options: str) -> list[dict[str, Any]]:
    """The objects of the umbrella chart.

    Raises:
        Unreadable: helm refuses it.

    """
    command = (program("helm"), "template", "b2b", str(CHART), "--namespace", "b2b-orders", *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode != 0:
        raise Unreadable(done.stderr.strip())
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def scaling(objects: Iterable[dict[str, Any]]) -> dict[str, Scaling]:
    """How each service is scaled, by CPU or by KEDA, whichever is rendered.

    Raises:
        Unreadable: a service has no autoscaler.

    """
    named = {(found["kind"], found["metadata"]["name"]): found for found in objects}
    return {service: _scaling(named, service) for service in SERVICES}


def _scaling(named: dict[tuple[str, str], dict[str, Any]], service: str) -> Scaling:
    name = f"b2b-{service}"
    try:
        deployment = named["Deployment", name]["spec"]["template"]["spec"]
        pool = int(named["ConfigMap", name]["data"]["DB_POOL_SIZE"])
        autoscaler = named.get(("HorizontalPodAutoscaler", name)) or named["ScaledObject", name]
    except KeyError as error:
        raise Unreadable(f"the chart renders no {error}") from None
    (container,) = deployment["containers"]
    request = cores(container["resources"]["requests"]["cpu"])
    probe = container["startupProbe"]["periodSeconds"]
    spec, window = autoscaler["spec"], 0.0
    if autoscaler["kind"] == "HorizontalPodAutoscaler":
        minimum, maximum, behavior = spec["minReplicas"], spec["maxReplicas"], spec.get("behavior", {})
        target = spec["metrics"][0]["resource"]["target"]["averageUtilization"]
    else:
        minimum, maximum = spec["minReplicaCount"], spec["maxReplicaCount"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        asked = spec["triggers"][0]["metadata"]
        target = float(asked["threshold"])
        if (found := re.search(r"\[(\d+)([sm])\]", asked["query"])) is not None:
            window = int(found[1]) * {"s": 1, "m": 60}[found[2]]
    up, down = rules(behavior.get("scaleUp"), UP), rules(behavior.get("scaleDown"), DOWN)
    return Scaling(minimum, maximum, up, down, request, target, window, probe, pool)


def cores(quantity: str) -> float:
    """`250m` or `1` of Kubernetes."""
    return int(quantity[:-1]) / _MILLI if quantity.endswith("m") else float(quantity)
