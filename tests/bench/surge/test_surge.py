"""The simulation: what it must do whatever the numbers are, and what it has drawn."""

from dataclasses import replace

import pytest

from bench.surge import __main__ as surge
from bench.surge import chart, document
from bench.surge.autoscaler import DOWN, UP
from bench.surge.outcome import outcome
from bench.surge.world import Case, Moment, run

SMALL = chart.Scaling(2, 10, UP, DOWN, 0.5, 80, 0, 2, 5)


def test_the_picture_and_the_tables_are_what_the_chart_says() -> None:
    files, _ = surge.made()

    for file, text in files.items():
        assert file.read_text() == text, f"{file.name}: run make surge"
    assert len(files) == 2


def test_the_query_of_the_document_is_the_one_of_the_chart() -> None:
    options = [f"--set=orders.autoscaling.{each}" for each in ("hpa.enabled=false", "keda.enabled=true")]
    objects = chart.rendered("--set=global.db.existingSecret=b2b-orders", *options)

    (query,) = [
        each["spec"]["triggers"][0]["metadata"]["query"] for each in objects if each["kind"] == "ScaledObject"
    ]

    assert f"```\n{query}\n```" in document.DOCUMENT.read_text()


def _case(by: str = "hpa", **changes: object) -> Case:
    scaling = replace(SMALL, target=80 if by == "hpa" else 2)
    costs = document.costs()
    return replace(Case("test", by, dict.fromkeys(chart.SERVICES, scaling), costs, 15), **changes)  # type: ignore[arg-type]  # a test's own


@pytest.mark.parametrize("by", ["hpa", "keda"])
def test_a_quiet_load_changes_nothing(by: str) -> None:
    moments = run(_case(by), lambda _: 5, 300)

    assert {tuple(moment.pods.values()) for moment in moments} == {(2, 2, 2)}
    assert all(moment.finished == pytest.approx(5, rel=0.01) for moment in moments)
    assert max(moment.latency for moment in moments) < 0.2


def test_the_hpa_settles_where_each_pod_uses_its_target() -> None:
    case = _case()

    last = run(case, lambda now: 100 if now > 0 else 5, 900)[-1]

    for service, pods in last.pods.items():
        used = 100 * case.costs[service].cpu / pods / SMALL.request
        assert used < 0.8 * 1.11, service
        assert pods == 2 or used * pods / (pods - 1) > 0.8, "with one less it would be too much"


@pytest.mark.parametrize("by", ["hpa", "keda"])
def test_nothing_is_lost_in_a_surge(by: str) -> None:
    def load(now: float) -> float:
        return 200 if 60 <= now < 300 else 20

    moments = run(_case(by), load, 900)

    assert sum(moment.finished for moment in moments) == pytest.approx(
        sum(moment.arriving for moment in moments), rel=0.02
    )
    assert max(sum(moment.pods.values()) for moment in moments) > 6
    assert moments[-1].latency < 0.2


def test_what_is_not_ready_gets_no_requests_and_pods_come_no_sooner_than_they_can() -> None:
    moments = run(_case(), lambda now: 200 if now >= 0 else 20, 120)

    first = next(moment.at for moment in moments if sum(moment.pods.values()) > 6)

    assert first >= 15 + 3 + 2, "a round of the controller after the next look, and a start"
    before = [moment for moment in moments if moment.at < first]
    assert max(moment.finished for moment in before[2:]) < 2 / document.costs()["orders"].cpu + 1


def test_an_outcome_says_never_where_it_is_never() -> None:
    scaling = dict.fromkeys(chart.SERVICES, replace(SMALL, maximum=2))
    case = _case(scaling=scaling)
    moments = run(case, lambda now: 200 if now >= 60 else 20, 180)

    came = outcome(case, moments, 60, 180)

    assert (came.first, came.keeps_up, came.in_time) == (None, None, None)
    assert came.most == 6
    assert came.longest > 30
    assert came.asked_again > 1000


def test_outcomes_count_from_the_surge() -> None:
    pods = {"orders": 2}
    slow = [Moment(at, 10, 5 if at < 7 else 10, 20 if at < 6 else 0.5, pods) for at in range(5, 10)]
    moments = [Moment(at, 1, 1, 0.1, pods) for at in range(5)] + slow

    came = outcome(_case(scaling={"orders": SMALL}), moments, 5, 9)

    assert (came.first, came.keeps_up, came.in_time, came.longest) == (None, 2, 1, 20)
    assert came.asked_again == 10
    assert came.back == 0


def test_a_chart_that_does_not_render_is_told_with_its_reason() -> None:
    with pytest.raises(chart.Unreadable, match="existingSecret"):
        chart.rendered()

    objects = chart.rendered("--set=global.db.existingSecret=b2b-orders")
    objects = [each for each in objects if each["kind"] != "HorizontalPodAutoscaler"]
    with pytest.raises(chart.Unreadable, match="ScaledObject"):
        chart.scaling(objects)


def test_quantities_are_cores() -> None:
    assert [chart.cores(each) for each in ("250m", "1", "0.5")] == [0.25, 1, 0.5]
