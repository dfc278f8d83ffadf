"""What one sample is: a row of the batch axis that all tensors share, or one whole inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.network import Sample
from csa_deploy.runners.base import filled, found_sample, rows_mix, run_padded
from csa_deploy.spec import TensorSpec, sampling_of

Shapes = dict[str, tuple[int | None, ...]]


class Computed:
    """A runner in NumPy: real arrays in, real arrays out."""

    host_threads, sample = 0, None

    def __init__(self, inputs: Shapes, outputs: Shapes, function: Any) -> None:
        self.name, self.calls, self._function = "numpy", 0, function
        self.input_specs = tuple(TensorSpec(n, s, "float32") for n, s in inputs.items())
        self.output_specs = tuple(TensorSpec(n, s, "float32") for n, s in outputs.items())

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert {n: a.shape for n, a in feeds.items()} == {
            s.name: tuple(g if e is None else e for e, g in zip(s.shape, feeds[s.name].shape, strict=True))
            for s in self.input_specs
        }
        self.calls += 1
        return dict(self._function(**feeds))

    def describe(self) -> dict[str, Any]:
        return {}

    def __enter__(self) -> Computed:
        return self

    def __exit__(self, *raised: object) -> None:
        return None


def specs(shapes: Shapes) -> list[TensorSpec]:
    return [TensorSpec(name, shape, "float32") for name, shape in shapes.items()]


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind", "batch", "shapes"),
    [
        ({"x": (4, 3)}, {"y": (4, 9)}, "batched", 4, {"x": (4, 3)}),
        ({"x": (1, 3)}, {"y": (1, 9)}, "batched", 1, {"x": (1, 3)}),
        ({"x": (None, 3)}, {"y": (None, 9)}, "batched", None, {"x": (1, 3)}),
        ({"x": (1, 1, 64, 160)}, {"y": (20, 1, 8210)}, "whole", 1, {"x": (1, 1, 64, 160)}),  # time first
        ({"x": (6, 3, 8, 8)}, {"y": (1, 5)}, "whole", 1, {"x": (1, 6, 3, 8, 8)}),  # six cameras, one map
        ({"x": (6, 3), "v": (1, 4)}, {"y": (1, 5)}, "whole", 1, {"x": (1, 6, 3), "v": (1, 4)}),
        ({"x": (6, 3)}, {"y": (6, 5), "z": ()}, "whole", 1, {"x": (1, 6, 3)}),
        ({"x": (4, 3), "s": ()}, {"y": (4, 5)}, "whole", 1, {"x": (1, 4, 3), "s": (1,)}),
    ],
)
def test_what_a_sample_is(
    inputs: Shapes, outputs: Shapes, kind: Sample, batch: int | None, shapes: dict[str, tuple[int, ...]]
) -> None:
    found = sampling_of(specs(inputs), specs(outputs))
    assert (found.kind, found.batch, found.shapes) == (kind, batch, shapes)


def test_every_sample_is_one_inference_where_no_axis_is_the_batch() -> None:
    draw = np.random.default_rng(0)
    cameras, ego = draw.random((5, 6, 3, 4), np.float32), draw.random((5, 2), np.float32)

    def scene(cameras: np.ndarray, ego: np.ndarray) -> dict[str, np.ndarray]:
        assert cameras.shape == (6, 3, 4) and ego.shape == (1, 2)
        each = cameras.sum(axis=2)
        return {"map": each.sum(axis=0)[None] + ego.sum(), "each": each, "total": cameras.sum()}

    runner = Computed({"cameras": (6, 3, 4), "ego": (1, 2)}, {"map": (1, 3), "each": (6, 3), "total": ()}, scene)
    got = run_padded(runner, {"cameras": cameras, "ego": ego})
    assert runner.calls == 5
    assert {name: array.shape for name, array in got.items()} == {"map": (5, 3), "each": (5, 6, 3), "total": (5, 1, 1)}
    np.testing.assert_allclose(got["map"], cameras.sum(axis=(1, 3)) + ego.sum(axis=1)[:, None], rtol=1e-5)
    np.testing.assert_allclose(got["each"], cameras.sum(axis=3), rtol=1e-6)
    np.testing.assert_allclose(got["total"][:, 0, 0], cameras.sum(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 3, 4, 5, 9])
def test_a_shared_batch_is_filled_up_and_cut(samples: int) -> None:
    x = np.random.default_rng(1).random((samples, 3), np.float32)
    runner = Computed({"x": (4, 3)}, {"y": (4, 3)}, lambda x: {"y": np.cumsum(x, axis=1)})
    np.testing.assert_array_equal(run_padded(runner, {"x": x})["y"], np.cumsum(x, axis=1))
    assert runner.calls == -(-samples // 4)


def test_filling_repeats_the_last_sample() -> None:
    x = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(filled({"x": x}, 5)["x"], [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])
    assert filled({"x": x}, 3)["x"] is x


def test_a_free_axis_is_one_where_a_shape_is_needed() -> None:
    assert TensorSpec("x", (None, 3, 0, 8), "float32").static_shape == (1, 3, 1, 8)
    assert TensorSpec("scalar", (), "float32").static_shape == ()


@pytest.mark.parametrize(("shape", "kept"), [((12, 1, 7), (12, 7)), ((6, 4, 7, 7), (6, 4, 7, 7)), ((5,), (5, 1))])
def test_an_output_without_an_axis_of_samples_keeps_its_own(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    """A map per camera stays one for a decode function; a sequence is no map, and one vector no classes."""
    how = sampling_of(specs({"x": (1, 3)}), specs({"y": shape}), "whole")
    array = np.arange(np.prod(shape)).reshape(shape)
    found = how.samples({"y": array})["y"]
    assert found.shape == (1, *kept)
    np.testing.assert_array_equal(found.ravel(), array.ravel())


def test_what_a_sample_is_can_be_said() -> None:
    inputs, outputs = specs({"x": (6, 3)}), specs({"y": (6, 5)})
    assert (sampling_of(inputs, outputs).kind, sampling_of(inputs, outputs).batch) == ("batched", 6)
    whole = sampling_of(inputs, outputs, "whole")
    assert (whole.kind, whole.batch, whole.shapes) == ("whole", 1, {"x": (1, 6, 3)})
    with pytest.raises(UsageError, match=r"--sample batched: not all .* x \[6, 3\], y \[1, 5\]"):
        sampling_of(inputs, specs({"y": (1, 5)}), "batched")


@pytest.mark.parametrize(
    ("function", "mix"),
    [
        (lambda x: {"y": x * 2}, False),
        (lambda x: {"y": x - x.mean(axis=1, keepdims=True)}, False),
        (lambda x: {"y": x - x.mean(axis=0)}, True),
        (lambda x: {"y": np.roll(x, 1, axis=0)}, True),
        (lambda x: {"y": x + 1e-7 * x.sum()}, False),  # as much as other kernels for other rows may give
    ],
)
def test_rows_that_influence_one_another_are_no_samples(function: Any, mix: bool) -> None:
    runner = Computed({"x": (4, 3)}, {"y": (4, 3)}, function)
    assert rows_mix(runner) is mix
    assert found_sample(runner, None, None) == ("whole" if mix else None)
    assert found_sample(runner, None, 4) is None and found_sample(runner, "batched", None) == "batched"
