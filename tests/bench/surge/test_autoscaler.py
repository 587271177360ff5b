"""The algorithm as Kubernetes documents it: formula, tolerance, stabilization, policies, pods that start."""

from hypothesis import given
from hypothesis import strategies as st

from bench.surge.autoscaler import DOWN, UP, Autoscaler, Policy, Rules, by_average, by_utilization, rules

PODS = st.integers(1, 40)


@given(current=PODS, percent=st.integers(1, 400), target=st.integers(20, 120))
def test_replicas_are_the_current_ones_times_the_ratio_rounded_up(
    current: int, percent: int, target: int
) -> None:
    wanted = by_utilization([percent / 100] * current, current=current, request=1, target=target)

    if 10 * abs(percent - target) <= target:  # a ratio within a tenth of 1
        assert wanted == current
    else:
        assert wanted == -(-current * percent // target)


@given(current=PODS, percent=st.integers(1, 4000), target=st.integers(1, 20))
def test_a_metric_per_pod_is_parted_into_pods_that_have_the_target(
    current: int, percent: int, target: int
) -> None:
    total = percent / 100

    wanted = by_average(total, current=current, target=target)

    if 10 * abs(percent - 100 * target * current) <= 100 * target * current:
        assert wanted == current
    else:
        assert wanted == -(-percent // (100 * target))


def test_percent_are_whole_as_the_controllers_are() -> None:
    assert by_utilization([0.889], current=1, request=1, target=80) == 1, "88 of 80 is within the tolerance"
    assert by_utilization([0.89], current=1, request=1, target=80) == 2


def test_pods_that_start_count_as_idle_when_more_are_wanted() -> None:
    four_busy = [1.0] * 4

    assert by_utilization(four_busy, current=4, request=0.5, target=80) == 10
    assert by_utilization(four_busy, starting=4, current=8, request=0.5, target=80) == 10
    assert by_utilization(four_busy, starting=6, current=10, request=0.5, target=80) == 10
    assert by_utilization(four_busy, missing=6, current=10, request=0.5, target=80) == 10
    ten_busy = [0.5] * 10
    assert by_utilization(ten_busy, current=10, request=0.5, target=80) == 13
    assert by_utilization(ten_busy, starting=2, current=12, request=0.5, target=80) == 12, "near enough"


def test_pods_that_start_never_turn_more_into_fewer() -> None:
    assert by_utilization([1.0], starting=9, current=10, request=1, target=50) == 10
    assert by_utilization([0.6], starting=1, current=2, request=1, target=50) == 2, "that they may need less"


def test_when_fewer_are_wanted_pods_without_a_metric_count_as_fully_used() -> None:
    assert by_utilization([0.1] * 4, current=4, request=1, target=50) == 1
    assert by_utilization([0.1] * 4, missing=1, current=5, request=1, target=50) == 3
    assert by_utilization([0.1] * 4, missing=4, current=8, request=1, target=50) == 8
    assert by_utilization([0.1] * 4, starting=4, current=8, request=1, target=50) == 1, "these do not count"


def test_without_any_metric_nothing_changes() -> None:
    assert by_utilization([], starting=3, current=3, request=1, target=50) == 3


def test_up_goes_as_far_as_the_most_generous_policy_lets_it() -> None:
    assert Autoscaler(2, 100).decide(0, 2, 50) == 6, "4 more are more than twice as many"
    assert Autoscaler(2, 100).decide(0, 10, 50) == 20, "twice as many are more than 4 more"
    assert Autoscaler(2, 100, up=Rules(0, UP.policies, "Min")).decide(0, 10, 50) == 14
    assert Autoscaler(2, 100, up=Rules(0, UP.policies, "Disabled")).decide(0, 10, 50) == 10
    assert Autoscaler(2, 100, up=Rules(0, (Policy("Percent", 10, 15),))).decide(0, 11, 50) == 13, "rounded up"


def test_a_policy_counts_what_was_added_within_its_period() -> None:
    scaler = Autoscaler(2, 100, up=Rules(0, (Policy("Pods", 4, 60),)))

    decided, at = [2], [0, 15, 30, 45, 60, 75]
    for now in at:
        decided.append(scaler.decide(now, decided[-1], 50))

    assert decided == [2, 6, 6, 6, 6, 10, 10]


def test_down_takes_so_many_pods_within_a_period() -> None:
    slowly = Autoscaler(2, 100, down=Rules(0, (Policy("Pods", 1, 60),)))
    by_half = Autoscaler(2, 100, down=Rules(0, (Policy("Percent", 50, 60),)))
    rarely = Autoscaler(2, 100, down=Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60)), "Min"))

    assert [slowly.decide(now, pods, 2) for now, pods in ((0, 10), (15, 9), (60, 9))] == [9, 9, 8]
    assert by_half.decide(0, 9, 2) == 4, "rounded down"
    assert rarely.decide(0, 10, 2) == 9


def test_down_follows_the_most_that_was_asked_for_within_the_window() -> None:
    scaler = Autoscaler(1, 100, down=Rules(300, DOWN.policies))

    decided = [10]
    for now in range(0, 331, 15):
        asked = 8 if now == 15 else 3
        decided.append(scaler.decide(now, decided[-1], asked))

    assert decided[1:21] == [10] * 20, "what there was when it was first seen counts for five minutes"
    assert decided[21] == 8, "and then what was asked for since"
    assert decided[22:] == [3, 3]


def test_up_follows_the_least_that_was_asked_for_within_its_window() -> None:
    scaler = Autoscaler(1, 100, up=Rules(30, UP.policies))

    assert [scaler.decide(now, 4, asked) for now, asked in ((0, 8), (15, 6), (30, 8))] == [4, 4, 6]


def test_the_number_stays_within_its_limits() -> None:
    assert Autoscaler(2, 5).decide(0, 4, 50) == 5
    assert Autoscaler(2, 5, down=Rules(0, DOWN.policies)).decide(0, 4, 1) == 2


def test_rules_are_read_as_the_object_has_them_and_defaults_fill_in() -> None:
    assert rules(None, UP) == UP
    assert rules({"stabilizationWindowSeconds": 0}, DOWN) == Rules(0, DOWN.policies)
    assert rules(
        {"selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}, DOWN
    ) == Rules(300, (Policy("Pods", 1, 60),), "Min")
