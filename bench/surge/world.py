"""Orders that arrive, pods that work on them, and the autoscalers that watch: a fluid model in small steps.

An order passes the orchestrator, customers and orders. At each it takes so much CPU (as measured), of
which a pod gets one core at most, and waits so long for the database. How many are there follows the fluid
equation of such a queue, dx/dt = arrivals - capacity * x / (1 + x) for each pod: it settles where a queue
with random arrivals has its mean, and grows by the difference when more arrives than the core can do.

What the autoscalers see is as old as in a cluster: the CPU of a pod is the mean between two looks of
metrics-server, requests in flight are what Prometheus scraped, and both look right after the controller
did, which is the worst. Nothing is lost, as in the real system: an order whose client was told to ask again
is still worked on. All pods of a service share its orders evenly: calls that wait are given up and repeated
after seconds, and reach other pods then. Not modelled: the database (docs/scaling.md says where it ends),
nodes that have to be added first, images that have to be pulled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt

from bench.surge.autoscaler import SYNC_SECONDS, Autoscaler, by_average, by_utilization
from bench.surge.chart import Scaling

STEP = 0.25
METRICS_SECONDS = 15
"""Between two looks of metrics-server (`--metric-resolution`), and two of Prometheus."""
METRICS_PHASE = 1
"""Seconds from a round of the controller to the next look: what it sees is nearly as old as it can be."""
CONTAINER_SECONDS = 3
"""From the decision to the first instruction of a container whose image is on the node."""
ENDPOINT_SECONDS = 1
"""From readiness to the first request."""
QUIET_SECONDS = 120
"""How long it runs before the time that is looked at."""
PATH = ("orchestrator", "customers", "orders")
"""The way of an order."""
_LONG_AGO = -3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a service takes for an order: seconds of CPU, and seconds that it waits for its database.

    `start` is the CPU that a process takes until it is ready, in seconds.
    """

    cpu: float
    wait: float
    start: float


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what scales, by `hpa` or `keda`.

    A pod gets `cores` at most; `shed` is after how many seconds a client is told to ask again.
    """

    name: str
    by: str
    scaling: Mapping[str, Scaling]
    costs: Mapping[str, Cost]
    shed: float
    cores: float = 1.0


@dataclass(slots=True)
class Pod:
    """A process: the CPU it took so far, and what it told those who measure, with their times."""

    ready_at: float
    cpu: float = 0.0
    cpu_told: list[float] = field(default_factory=list)
    in_flight_told: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moment:
    """What is to be seen at a second: orders a second, seconds to the answer, pods that are ready."""

    at: float
    arriving: float
    finished: float
    latency: float
    pods: Mapping[str, int]


class Station:
    """One service: its orders, its pods and their autoscaler; `rate` is what it finishes a second."""

    def __init__(self, scaling: Scaling, cost: Cost, case: Case) -> None:
        self.pods = [Pod(_LONG_AGO) for _ in range(scaling.minimum)]
        self.rate = 0.0
        self._scaling, self._cost, self._case = scaling, cost, case
        self._autoscaler = Autoscaler(scaling.minimum, scaling.maximum, scaling.up, scaling.down)
        self._capacity = case.cores / cost.cpu
        self._orders = 0.0

    def ready(self, now: float) -> list[Pod]:
        """The pods that get requests."""
        return [pod for pod in self.pods if pod.ready_at <= now]

    def work(self, now: float, arriving: float) -> None:
        """Let a step pass with so many orders arriving a second: the equation above, solved backwards."""
        ready = self.ready(now)
        most = STEP * self._capacity
        there = (self._orders + STEP * arriving) / len(ready)
        left = (there - 1 - most + sqrt((there - 1 - most) ** 2 + 4 * there)) / 2
        self.rate = len(ready) * (there - left) / STEP
        self._orders = len(ready) * left
        for pod in ready:
            pod.cpu += (there - left) * self._cost.cpu

    def latency(self, now: float) -> float:
        """Seconds that an order spends here."""
        return (1 + self._orders / len(self.ready(now))) / self._capacity + self._cost.wait

    def in_flight(self, elsewhere: float) -> float:
        """Requests that are open, here or waiting for those elsewhere, as long as their clients wait."""
        return min(self._orders + self.rate * self._cost.wait + elsewhere, self._case.shed * self.rate)

    def measure(self, now: float, in_flight: float) -> None:
        """Let metrics-server and Prometheus look."""
        ready = self.ready(now)
        for pod in ready:
            pod.cpu_told.append(pod.cpu)
            pod.in_flight_told.append((now, in_flight / len(ready)))

    def scale(self, now: float) -> None:
        """Let the controller have its round."""
        current = len(self.pods)
        wanted = self._by_cpu(now) if self._case.by == "hpa" else self._by_requests(now)
        decided = self._autoscaler.decide(now, current, wanted)
        start = (
            CONTAINER_SECONDS + self._cost.start / self._case.cores + self._scaling.probe + ENDPOINT_SECONDS
        )
        self.pods += [Pod(now + start) for _ in range(current, decided)]
        del self.pods[decided:]

    def _by_cpu(self, now: float) -> int:
        ready, scaling = self.ready(now), self._scaling
        known = [pod.cpu_told[-2:] for pod in ready if len(pod.cpu_told) > 1]
        return by_utilization(
            [(after - before) / METRICS_SECONDS for before, after in known],
            starting=len(self.pods) - len(ready),
            missing=len(ready) - len(known),
            current=len(self.pods),
            request=scaling.request,
            target=int(scaling.target),
        )

    def _by_requests(self, now: float) -> int:
        """By the last sample of each pod, or the mean of those within the window of the query."""
        total = 0.0
        for pod in self.pods:
            window = [value for at, value in pod.in_flight_told if now - at < self._scaling.window]
            told = window or [value for _, value in pod.in_flight_told[-1:]] or [0.0]
            total += sum(told) / len(told)
        return by_average(total, current=len(self.pods), target=self._scaling.target)


def run(case: Case, load: Callable[[float], float], seconds: int) -> list[Moment]:
    """What happens with so many orders a second, by the time; a moment for each second."""
    stations = [Station(case.scaling[name], case.costs[name], case) for name in PATH]
    _, *behind = stations
    moments: list[Moment] = []
    for step in range(round(-QUIET_SECONDS / STEP), round(seconds / STEP)):
        now = step * STEP
        rate = load(now)
        for station in stations:
            station.work(now, rate)
            rate = station.rate
        if (now - METRICS_PHASE) % METRICS_SECONDS == 0:
            waited_for = sum(station.in_flight(0) for station in behind)
            for station, elsewhere in zip(stations, (waited_for, 0, 0), strict=True):
                station.measure(now, station.in_flight(elsewhere))
        if now % SYNC_SECONDS == 0:
            for station in stations:
                station.scale(now)
        if now >= 0 and now % 1 == 0:
            pods = {name: len(station.ready(now)) for name, station in zip(PATH, stations, strict=True)}
            latency = sum(station.latency(now) for station in stations)
            moments.append(Moment(now, load(now), rate, latency, pods))
    return moments
