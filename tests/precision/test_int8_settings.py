"""Settings of INT8."""

from types import SimpleNamespace

import pytest

from csa_deploy.cli.quantize import held
from csa_deploy.config import Config
from csa_deploy.errors import UsageError
from csa_deploy.precision.int8_stage import training_set
from csa_deploy.records.precision import Search, SearchPoint
from csa_deploy.setting_values import parse_budget


def test_a_budget_without_precision_bounds_the_reduced_ones_and_a_drop_is_in_points():
    assert parse_budget(["top1-drop=0.5"]) == {"fp16": {"top1_drop": 0.005}, "int8": {"top1_drop": 0.005}}
    assert parse_budget(["int8.top1_drop=0.005"]) == {"int8": {"top1_drop": 0.005}}
    assert parse_budget({"int8.top1_drop": 0.005, "snr-db": 25, "fp16": {"cosine": 0.9}}) == {
        "fp16": {"cosine": 0.9, "snr_db": 25},
        "int8": {"top1_drop": 0.005, "snr_db": 25},
    }
    assert parse_budget(["snr-db=25"]) == {"fp16": {"snr_db": 25}, "int8": {"snr_db": 25}}


def test_int8_is_a_precision_with_a_budget_of_its_own():
    config = Config(precision="fp32,int8")
    assert config.precision == ("fp32", "int8")
    assert config.bounds("int8")["snr_db"] == 20.0


def test_a_wrong_budget_is_refused():
    from csa_deploy.config import make_config

    with pytest.raises(UsageError, match="unknown metric 'top1_fall'"):
        make_config({"budget": ["top1-fall=0.5"]})


@pytest.mark.parametrize(
    ("data", "own", "taken"),
    [
        (None, "digits", "digits:train"),
        ("mine.csv", "digits", "digits:train"),
        ("animals", "digits", "animals:train"),
        ("photos", None, None),
        (None, None, None),
    ],
)
def test_calibration_takes_the_training_part_of_the_networks_own_set(data, own, taken):
    source = SimpleNamespace(entry=SimpleNamespace(dataset=own) if own else None)
    assert training_set(SimpleNamespace(config=SimpleNamespace(data=data), source=source)) == taken


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"snr_db": 30.0, "top1_agreement": 0.9375}, "holds (1 of 16 differ)"),
        ({"snr_db": 30.0, "top1_agreement": 1.0, "top1_drop": 0.0625}, "holds (1 of 16 go wrong)"),
        ({"snr_db": float("inf")}, "holds"),
    ],
)
def test_a_budget_that_holds_by_one_image_says_so(metrics, said):
    broken = ("snr_db of 'box' is 14.1, bound 20", "b", "c")
    good, bad = (SearchPoint(returned=0, metrics=metrics, broken=b, latency_ms=None) for b in ((), broken))
    search = Search(
        pareto=(good, bad),
        sensitivities=(),
        estimate_agrees=None,
        returned=(),
        images=16,
        budget={"snr_db": 20.0, "top1_agreement": 0.95, "top1_drop": 0.01},
        device="",
    )
    assert held(good, search) == said
    assert held(bad, search) == "broken: snr_db of 'box' is 14.1, bound 20 (and 2 more)"
