"""Which settings go together, told before anything runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from csa_deploy.builders import check_settings, opened_builder, uses_trtexec
from csa_deploy.config import make_config
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import UsageError
from csa_deploy.stages.build import graph_for
from csa_deploy.trtexec.settings import TrtexecOptions, parse_options
from csa_deploy.trtexec.versions import parse_version


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
        ({"target": "missing.yaml"}, "missing.yaml: no such target file"),
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


def test_the_python_builders_have_no_command(tmp_path: Path) -> None:
    with (
        opened_builder(make_config({"backend": "tensorrt-rtx"})) as builder,
        pytest.raises(UsageError, match="dry-run"),
    ):
        builder.job(tmp_path / "unread.onnx", BuildPlan())


@pytest.mark.parametrize(
    ("version", "options", "fp16", "int8"),
    [
        ("8.6.1", {}, "fp32", "int8"),
        ("8.6.1", {"dla_core": 0, "calibration_cache": Path("c")}, "fp32", "fp32"),
        ("10.7.0", {}, "fp16", "int8"),
        ("10.7.0", {"dla_core": 0}, "fp32", "int8"),
        ("10.7.0", {"dla_core": 0, "calibration_cache": Path("c")}, "fp32", "fp32"),
        ("11.4.1", {"dla_core": 0}, "fp16", "int8"),
    ],
)
def test_the_fp32_graph_is_built_where_tensorrt_makes_the_precision(
    version: str, options: dict[str, Any], fp16: str, int8: str
) -> None:
    builder = SimpleNamespace(
        machine=SimpleNamespace(version=parse_version(version)), options=TrtexecOptions(**options)
    )
    graphs = {name: name for name in ("fp32", "fp16", "int8")}
    context = SimpleNamespace(graphs=lambda: graphs, path=Path)
    made = [str(graph_for(context, builder, precision)) for precision in ("fp32", "fp16", "int8")]  # type: ignore[arg-type]
    assert made == ["fp32", fp16, int8]
