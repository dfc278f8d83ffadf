"""Settings of INT8."""

import pytest

from csa_deploy.config import Config, parse_budget
from csa_deploy.errors import UsageError


def test_a_budget_without_precision_bounds_the_reduced_ones_and_a_drop_is_in_points():
    assert parse_budget(["top1-drop=0.5"]) == {"fp16": {"top1_drop": 0.005}, "int8": {"top1_drop": 0.005}}
    assert parse_budget(["int8.top1_drop=0.005"]) == {"int8": {"top1_drop": 0.005}}
    assert parse_budget(["snr-db=25"]) == {"fp16": {"snr_db": 25}, "int8": {"snr_db": 25}}


def test_int8_is_a_precision_with_a_budget_of_its_own():
    config = Config(precision="fp32,int8")
    assert config.precision == ("fp32", "int8")
    assert config.bounds("int8")["snr_db"] == 20.0


def test_a_wrong_budget_is_refused():
    from csa_deploy.config import make_config

    with pytest.raises(UsageError, match="unknown metric 'top1_fall'"):
        make_config({"budget": ["top1-fall=0.5"]})
