"""Defaults, YAML and flags become one validated configuration; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from csa_deploy.config import Config, make_config, normalise, read_yaml
from csa_deploy.errors import UsageError
from csa_deploy.setting_values import parse_size


@pytest.mark.parametrize(
    ("given", "meant"),
    [(224, (224, 224)), ("256x448", (256, 448)), ("64X32", (64, 32)), ([256, 448], (256, 448)), (None, None)],
)
def test_sizes(given: Any, meant: tuple[int, int] | None) -> None:
    assert parse_size(given) == meant


@pytest.mark.parametrize("given", ["0", "0x3", "-1", "x", "3x", "3x4x5", "", "1.5", [1, 2, 3]])
def test_sizes_that_are_none(given: Any) -> None:
    with pytest.raises(UsageError, match="size: a size is one side in pixels or HEIGHTxWIDTH"):
        make_config({"size": given})


def test_later_layers_win_and_none_is_not_given() -> None:
    config = make_config({"samples": 3, "seed": 1}, {"samples": 4}, {"samples": None, "network": "n"})
    assert (config.samples, config.seed, config.network) == (4, 1, "n")


def test_lists_by_commas_and_repeated() -> None:
    config = make_config({"precision": ["fp16,fp32", "fp16"], "keep_fp32": "a, b", "scope": []})
    assert config.precision == ("fp16", "fp32") and config.keep_fp32 == ("a", "b") and config.scope == ()


def test_tensorrt_written_as_a_number() -> None:
    assert (make_config({"tensorrt": 8.6}).tensorrt, make_config({"tensorrt": 10}).tensorrt) == ("8.6", "10")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"samples": 0}, "samples: .*greater than or equal to 1.*got 0"),
        ({"samples": "many"}, "samples: .*integer.*got 'many'"),
        ({"batch": 0}, "batch"),
        ({"batch": [1]}, "batch"),
        ({"threads": 0}, "threads"),
        ({"seed": -1}, "seed"),
        ({"export_tolerance": 0}, "export_tolerance"),
        ({"tensorrt": "9"}, "tensorrt: .*'8.6', '10' or '11'"),
        ({"tensorrt": "8.5.10"}, "tensorrt"),
        ({"tensorrt": "8.6.x"}, "tensorrt"),
        ({"exporter": "magic"}, "exporter"),
        ({"precision": ["int4"]}, "precision"),
        ({"precision": []}, "precision"),
        ({"restricted": "perhaps"}, "restricted"),
        ({"opset": 7}, "opset"),
        ({"budget": ["fp16.snr=3"]}, "budget: unknown metric 'snr', did you mean 'snr_db'"),
        ({"budget": ["fp8.snr_db=3"]}, "budget: unknown precision 'fp8'"),
        ({"budget": ["fp16.snr_db=-"]}, "budget"),
        (
            {"budget": ["int8.top1_agreement=95"]},
            "budget: int8.top1_agreement is a share from 0 to 1, not 95: write 0.95",
        ),
        ({"budget": ["top1-drop=-1"]}, "budget: fp16.top1_drop is a share from 0 to 1, not -0.01"),
        ({"budget": {"int8": {"top1_drop": 5}}}, "top1-drop=VALUE without a precision is in percentage points"),
        (
            {"techniques": "foo"},
            "techniques: unknown technique 'foo'; known: auto, none, equalization, clip-equalization",
        ),
        ({"techniques": "none,equalization"}, "techniques: 'none' stands alone"),
        ({"budget": ["snr_db"]}, "budget: 'snr_db' is not PRECISION.METRIC=VALUE"),
        ({"budget": {"fp16": {"snr_db": "loud"}}}, "budget.fp16.snr_db"),
        ({"budget": {"fp16": 3}}, "budget.fp16"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        make_config(values)
    assert "\n" not in str(caught.value) and caught.value.fix


def test_a_budget_changes_one_metric_and_keeps_the_others() -> None:
    flags = make_config({"budget": ["fp16.snr_db=55", "fp16.cosine=0.9"]})
    file = make_config({"budget": {"fp16": {"snr_db": 55.0, "cosine": 0.9}}})
    assert flags == file
    assert flags.bounds("fp16") == {**make_config({}).bounds("fp16"), "snr_db": 55.0, "cosine": 0.9}
    assert flags.bounds("fp32") == Config().bounds("fp32")


def test_the_stored_form_makes_the_same_configuration_again() -> None:
    config = make_config({"size": "64x32", "precision": "fp16", "budget": ["fp16.top1=0.5"], "scope": ["drive-os-6"]})
    again = make_config(config.to_json())
    assert again.to_json() == config.to_json()
    assert config.to_json()["budget"]["fp16"]["top1"] == 0.5 and "fp32" not in config.to_json()["budget"]


def test_dashes_shorthands_and_precision_add_up() -> None:
    assert normalise({"keep-fp32": ["a"], "fp16": True, "fp32": False}, "f") == {
        "keep_fp32": ["a"],
        "precision": ["fp16"],
    }
    assert normalise({"precision": "fp32", "fp16": True}, "f")["precision"] == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sampels": 3}, "f: unknown key 'sampels', did you mean 'samples'"),
        ({"zzz": 3}, "f: unknown key 'zzz'$"),
        ({3: 3}, "f: unknown key '3'"),
        ({"keep-fp32": [], "keep_fp32": []}, "f: key 'keep_fp32' is given twice"),
        ({"fp16": "yes"}, "f: fp16 is true or false, not 'yes'"),
    ],
)
def test_a_wrong_key_is_named(values: dict[Any, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalise(values, "f")
    import re

    assert re.search(said, caught.value.message)
    assert caught.value.fix


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("network: csa_digits\nfp16: true\nbudget:\n  fp16:\n    snr_db: 50\n")
    assert read_yaml(path) == {"network": "csa_digits", "precision": ["fp16"], "budget": {"fp16": {"snr_db": 50}}}
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "a configuration is a mapping"),
        (b"a: [1\n", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read|not valid YAML"),
        (b"network: !!python/object/apply:os.system ['touch pwned']\n", "not valid YAML"),
    ],
)
def test_yaml_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_yaml(path)
    with pytest.raises(UsageError, match="no such configuration file"):
        read_yaml(tmp_path / "other.yaml")
