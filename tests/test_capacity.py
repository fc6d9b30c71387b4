"""What a demand takes, on numbers that can be divided in the head; and how numbers are said."""

from typing import Any

import pytest

from raybench.analysis.capacity import need
from raybench.analysis.spent import Held, spent
from raybench.analysis.spoken import percent, seconds, times, usd

ROW: dict[str, Any] = {"transactions_per_minute": 100.0, "instance_count": 1, "price_per_hour": 10.0}


@pytest.mark.parametrize(("demand", "instances"), [(1, 1), (80, 1), (81, 2), (160, 2), (10_000, 125)])
def test_a_fifth_of_every_copy_is_kept_free(demand: float, instances: int) -> None:
    found = need(ROW, demand)
    assert found is not None
    assert (found.instances, found.usd_per_month) == (instances, instances * 7_300.0)


def test_a_setting_of_several_instances_grows_by_all_of_them() -> None:
    found = need(ROW | {"instance_count": 3}, 100)
    assert found is not None
    assert (found.instances, found.usd_per_month) == (6, 43_800.0)


def test_without_throughput_there_is_no_answer_and_without_a_price_no_dollars() -> None:
    assert need(ROW | {"transactions_per_minute": None}, 1) is None
    assert need(ROW | {"transactions_per_minute": 0.0}, 1) is None
    found = need(ROW | {"price_per_hour": None}, 1)
    assert found is not None
    assert found.usd_per_month is None


def test_deploy_and_idle_time_are_told_apart_where_they_are_known() -> None:
    experiment = {"price_per_hour": 36.0, "instance_count": 2, "duration_s": 100.0, "cost_usd": 2.0}
    assert spent(experiment) == {"load": Held(100.0, 2.0)}
    found = spent(experiment | {"deploy_s": 300.0, "idle_s": 50.0})
    assert found == {"load": Held(100.0, 2.0), "deploy": Held(300.0, 6.0), "idle": Held(50.0, 1.0)}
    assert spent(experiment | {"duration_s": None}) == {}


def test_numbers_are_said_with_three_figures_and_dollars_with_cents() -> None:
    assert [usd(value) for value in (1049.594, 1.0, 0.5022, 0.00123, 0.0, None)] == [
        "1,049.59", "1.00", "0.502", "0.00123", "0.00", "–",
    ]  # fmt: skip
    assert [seconds(value) for value in (1204.6, 42.79, 3.806, 0.4182, 0.00123, 0.0, None, float("inf"))] == [
        "1,205", "42.8", "3.81", "0.418", "0.00123", "0", "–", "–",
    ]  # fmt: skip
    assert [times(value) for value in (1.004, 4.188, 13.57, None)] == ["1.00×", "4.2×", "14×", "–"]
    assert [percent(value) for value in (0.0, 0.0042, 0.048, None)] == ["0.0 %", "0.42 %", "4.8 %", "–"]
