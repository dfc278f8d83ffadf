"""Parts that run one after another: what the whole takes and gives, and parts that do not go together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.runners.chained_runner import ChainedRunner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

Build = Callable[..., onnx.ModelProto]


def runner(model: onnx.ModelProto, name: str = "part", threads: int = 1) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(model.SerializeToString(), name=name, threads=threads)


@pytest.fixture(scope="module")
def parts(build: Build) -> dict[str, onnx.ModelProto]:
    return {
        "encoder": build("(float[1,4] x) => (float[1,4] f, float[1,4] early)", "f = Relu(x) early = Neg(f)"),
        "y": build("(float[1,4] f, float[1,4] speed) => (float[1,4] y)", "y = Add(f, speed)"),
        "z": build("(float[1,4] f, float[1,4] x) => (float[1,4] z)", "z = Mul(f, x)"),
    }


def test_the_whole_takes_what_no_part_makes(parts: dict[str, onnx.ModelProto]) -> None:
    x, speed = np.array([[-1, 2, -3, 4]], "f4"), np.full((1, 4), 0.5, "f4")
    with ChainedRunner({n: runner(p, n, k) for k, (n, p) in enumerate(parts.items(), 1)}, ["z", "early", "y"]) as chain:
        assert [spec.name for spec in chain.input_specs] == ["x", "speed"]
        assert [spec.name for spec in chain.output_specs] == ["z", "early", "y"]
        found = chain.run({"x": x, "speed": speed})
        assert list(found) == ["z", "early", "y"]  # what only crosses is none of them
        described = chain.describe()
        with pytest.raises(UsageError, match="inputs"):
            chain.run({"x": x})
        assert chain.host_threads == 3
    f = np.maximum(x, 0)
    for name, want in {"z": f * x, "early": -f, "y": f + speed}.items():
        np.testing.assert_array_equal(found[name], want)
    assert described["backend"] == "onnxruntime" and list(described["parts"]) == ["encoder", "y", "z"]
    assert described["executes"].startswith("encoder, then y, then z: ")
    with pytest.raises(UsageError, match="is closed"):
        chain.run({"x": x, "speed": speed})


def test_parts_that_do_not_go_together(parts: dict[str, onnx.ModelProto], build: Build) -> None:
    wide = build("(float[1,5] f) => (float[1,5] y)", "y = Relu(f)")
    half = build("(float16[1,4] f) => (float16[1,4] y)", "y = Relu(f)")
    for head, said in ((wide, r"float32 \[1, 5\]"), (half, r"float16 \[1, 4\]")):
        with pytest.raises(UsageError, match=rf"y takes 'f' as {said}, encoder gives float32 \[1, 4\]"):
            ChainedRunner({"encoder": runner(parts["encoder"]), "y": runner(head)}, ["y"])
    with pytest.raises(UsageError, match="no part makes the output 'w'"):
        ChainedRunner({"encoder": runner(parts["encoder"])}, ["f", "w"])
    two = build("(float[2,4] x) => (float[2,4] q)", "q = Relu(x)")
    with pytest.raises(UsageError, match=r"q takes 'x'.*the network gives"):
        ChainedRunner({"encoder": runner(parts["encoder"]), "q": runner(two)}, ["f", "q"])
