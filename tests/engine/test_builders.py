"""Which settings go together, told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from csa_deploy.config import make_config
from csa_deploy.engine.builders import check_settings, opened_builder, uses_trtexec
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.trtexec_settings import TrtexecOptions, parse_options
from csa_deploy.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "tensorrt-rtx", "builder_option": ["dla_core=0"]}, "--builder-option is for trtexec"),
        ({"backend": "trtexec", "builder_option": ["dla_cores=0"]}, "unknown builder option 'dla_cores'"),
        ({"backend": "trtexec", "builder_option": ["dla_core=x"]}, "no whole number"),
        ({"backend": "trtexec", "builder_option": ["refit=maybe"]}, "true or false"),
        ({"backend": "trtexec", "builder_option": ["memory_pools=1"]}, "unknown builder option"),
        ({"backend": "trtexec", "builder_option": ["gpu_fallback"]}, "need a DLA core"),
        ({"backend": "tensorrt", "target": "t.yaml"}, "--target builds with trtexec"),
        ({"target": "missing.yaml"}, "missing.yaml: cannot be read"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_settings(make_config(settings))
    assert message in caught.value.message


def test_options_by_name() -> None:
    given = ["dla-core=1", "gpu_fallback", "refit=false", "memory_pools.dlaSRAM=1", "sparsity=enable"]
    assert parse_options([*given, "calibration_cache=c.cache"]) == TrtexecOptions(
        dla_core=1,
        gpu_fallback=True,
        memory_pools={"dlaSRAM": 1},
        sparsity="enable",
        calibration_cache=Path("c.cache"),
    )


def test_a_target_means_trtexec() -> None:
    assert uses_trtexec(make_config({"target": "t.yaml"}))
    assert uses_trtexec(make_config({"backend": "trtexec"}))
    assert not uses_trtexec(make_config({}))


def test_the_python_builders_have_no_command(conv_fp32: Path) -> None:
    with (
        opened_builder(make_config({"backend": "tensorrt-rtx"})) as builder,
        pytest.raises(UsageError, match="dry-run"),
    ):
        builder.job(conv_fp32, BuildPlan())
