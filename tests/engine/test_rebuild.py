"""The command in a passport is one that `build` takes, and names what steers the engine."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from csa_deploy.config import make_config
from csa_deploy.options import BY_VERB
from csa_deploy.stages.build import rebuild_command


def rebuilt(built: str, **settings: Any) -> list[str]:
    context = SimpleNamespace(config=make_config({"network": "net", **settings}))
    return rebuild_command(context, built)  # type: ignore[arg-type]


STEERS = {
    "precision": ["fp16", "int8"],
    "budget": ["int8.snr_db=30", "fp16.snr_db=50"],
    "techniques": "none",
    "calib": "digits:train",
    "calib_samples": 96,
    "search": False,
    "size": "32x64",
    "keep_fp32": ["a", "b"],
}


def test_int8_is_steered_as_it_was() -> None:
    assert " ".join(rebuilt("int8", **STEERS)) == (
        "csa-deploy build net --size 32x64 --keep-fp32 a --keep-fp32 b --calib digits:train --calib-samples 96 "
        "--no-search --techniques none --budget int8.snr_db=30.0 --precision int8"
    )


def test_what_steers_int8_alone_is_left_out_of_the_others() -> None:
    assert " ".join(rebuilt("fp16", **STEERS)) == (
        "csa-deploy build net --size 32x64 --keep-fp32 a --keep-fp32 b --precision fp16"
    )


def test_settings_are_read_back_as_they_were() -> None:
    words = rebuilt("int8", **{**STEERS, "techniques": ["bias-correction"]})
    flags = dict(pairwise(words))
    again = make_config({"budget": [flags["--budget"]], "techniques": [flags["--techniques"]]})
    assert (again.budget, again.techniques) == ({"int8": {"snr_db": 30.0}}, ("bias_correction",))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_flag_is_one_of_build(precision: str) -> None:
    """What other verbs alone have (--localize, --samples, --iterations, --baseline) is not among them."""
    others = {"localize": True, "samples": 9, "iterations": 3, "limit": ["fp32.p50_ms=1"], "baseline": "b"}
    words = rebuilt(precision, **STEERS, **others)
    flags = {word.removeprefix("--no-").removeprefix("--").replace("-", "_") for word in words if word[:2] == "--"}
    assert flags <= set(BY_VERB["build"])
