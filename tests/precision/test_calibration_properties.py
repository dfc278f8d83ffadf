"""Calibration does not depend on batch, order, threads or a split over workers: not by a bit, on edges neither."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper, parser

from csa_deploy.errors import UsageError
from csa_deploy.precision.calibration import Key, Statistics, calibrate
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.histogram import BINS, Histogram, Scratch, step_of
from csa_deploy.precision.spread import CalibrationJob, Observation
from csa_deploy.precision.thresholds import METHODS, threshold

TINY, HUGE = float(np.float32(1e-45)), float(np.float32(3e38))
FLOATS = st.one_of(
    st.floats(-HUGE, HUGE, width=32),
    st.sampled_from([0.0, -0.0, TINY, -TINY, 2.0**-126, 2.0**-100, 1.0, 4096.0, -HUGE]),
)
IMAGES = st.lists(
    st.one_of(
        arrays(np.float32, 12, elements=FLOATS),
        arrays(np.float32, 12, elements=st.floats(-1, 1, width=32)),
        FLOATS.map(lambda value: np.full(12, value, np.float32)),
    ),
    min_size=1,
    max_size=9,
)


def counted(images: Sequence[np.ndarray]) -> Histogram:
    histogram, scratch = Histogram(), Scratch()
    for image in images:
        assert histogram.add(image[None], scratch)
    return histogram


def facts(histogram: Histogram) -> tuple[object, ...]:
    """All that thresholds are made of, and the thresholds."""
    limits = [threshold(histogram, method) for method in METHODS]
    return histogram.counts.tobytes(), histogram.exponent, histogram.amax, *limits


@given(IMAGES, st.randoms(use_true_random=False), st.integers(1, 7))
def test_neither_order_nor_batch_nor_a_split_over_workers_changes_a_bit(images, draw, batch):
    expected = facts(counted(images))
    shuffled = draw.sample(images, len(images))
    assert facts(counted(shuffled)) == expected
    batched, scratch = Histogram(), Scratch()
    for start in range(0, len(images), batch):
        assert batched.add(np.stack(images[start : start + batch]), scratch)
    assert facts(batched) == expected
    workers = [counted(shuffled[start::batch]) for start in range(batch)]
    whole = Histogram()
    for worker in draw.sample(workers, len(workers)):
        whole.take(worker)
    assert facts(whole) == expected


@given(IMAGES)
def test_counts_are_those_of_exact_arithmetic(images):
    histogram, values = counted(images), np.abs(np.stack(images)).astype(np.float64).reshape(-1)
    assert histogram.amax == values.max() and histogram.total == values.size
    if histogram.exponent is None:
        assert not values.any()
        return
    bins = np.floor(values / histogram.width).astype(int)  # a division by a power of two
    assert np.array_equal(histogram.counts, np.bincount(bins, minlength=BINS))
    assert histogram.exponent == -100 or 2.0 ** (histogram.exponent - 1) <= values.max()


def test_an_outlier_in_the_last_image_gives_what_it_gives_in_the_first():
    draw = np.random.default_rng(0)
    images = [draw.standard_normal(1000).astype("f4") for _ in range(5)] + [np.full(1000, 1e6, "f4")]
    assert facts(counted(images)) == facts(counted(images[::-1]))


WINDOWS = """< ir_version: 9, opset_import: ["" : 18] >
g (float[BATCH,2,4,4] x) => (float[BATCH,5] y)
< int64[6] cut = {BATCH,2,2,2,2,2}, int64[4] joined = {ALL,2,2,2}, int64[2] flat = {BATCH,32} >
{
  c = Conv <pads = [1,1,1,1]> (x, w)
  r = Relu (c)
  s = Reshape (r, cut)
  t = Transpose <perm = [0,2,4,1,3,5]> (s)
  j = Reshape (t, joined)
  v = Add (j, mask)
  a = Conv (v, k)
  f = Reshape (a, flat)
  z = Sigmoid (f)
  m = Mul (f, z)
  y = MatMul (m, u)
}"""
"""Windows of images, as attention has them: their number, four per image, is on the axis of the batch."""
OBSERVED = ("x", "r", "v", "a", "f", "m")


def windows(batch: int) -> onnx.ModelProto:
    model = parser.parse_model(WINDOWS.replace("BATCH", str(batch)).replace("ALL", str(4 * batch)))
    draw = np.random.default_rng(0)
    for name, shape in {"w": (2, 2, 3, 3), "k": (2, 2, 1, 1), "u": (32, 5)}.items():
        model.graph.initializer.append(numpy_helper.from_array(draw.standard_normal(shape).astype("f4"), name))
    mask = np.tile(draw.standard_normal((4, 1, 2, 2)).astype("f4"), (batch, 1, 1, 1))  # one part per window
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    return model


def calibrated(batch: int, images: np.ndarray, folder: Path, threads: int = 1) -> Statistics:
    np.savez(folder / "images.npz", x=images)
    data = open_calibration(str(folder / "images.npz"), None, {"x": images.shape})
    return calibrate(windows(batch), data, OBSERVED, threads=threads)


def statistics_of(found: Statistics) -> tuple[object, ...]:
    return {name: facts(h) for name, h in found.histograms.items()}, found.ranges, found.images, found.largest


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(1, 16), st.randoms(use_true_random=False), st.sampled_from(["normal", "outlier", "zero", "flat"]))
def test_a_whole_calibration_is_the_same_for_batch_1_2_and_7_in_any_order(tmp_path_factory, count, draw, kind):
    folder = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(count).standard_normal((count, 2, 4, 4)).astype("f4")
    if kind == "outlier":
        images[-1] *= 1e20
    elif kind != "normal":
        images[:] = 0.0 if kind == "zero" else 0.75
    expected = statistics_of(calibrated(1, images, folder))
    for batch, threads in ((1, 2), (2, 1), (2, 2), (7, 1), (7, 2)):
        order = draw.sample(range(count), count)
        assert statistics_of(calibrated(batch, images[order], folder, threads)) == expected


def test_a_batch_that_the_windows_share_an_axis_with_counts_no_sample_twice(tmp_path):
    images = np.random.default_rng(1).standard_normal((5, 2, 4, 4)).astype("f4")
    alone, seven = calibrated(1, images, tmp_path), calibrated(7, images, tmp_path)
    assert seven.histograms["v"].total == 5 * 32
    assert statistics_of(alone) == statistics_of(seven)


def test_a_share_is_of_its_own_samples_alone_whatever_was_observed_before(tmp_path):
    """Also after one that stopped in the middle: a worker goes on with the next, and what it gives is kept."""
    images = np.random.default_rng(2).standard_normal((12, 2, 4, 4)).astype("f4")
    images[1] *= 100.0
    images[7] = np.nan
    np.savez(tmp_path / "images.npz", x=images)
    data = open_calibration(str(tmp_path / "images.npz"), None, {"x": images.shape})
    job = CalibrationJob(windows(1), data, OBSERVED, 1, 2)

    def opened() -> Observation:
        return Observation.of(job, data, Key("", "", "", ""))

    used = opened()
    used.share(range(4))
    with pytest.raises(UsageError, match="on image 7"):
        used.share(range(4, 8))
    assert used.share(range(8, 12)).to_bytes() == opened().share(range(8, 12)).to_bytes()
    assert used.share(range(4)).to_bytes() == opened().share(range(4)).to_bytes()


EMPTY = """< ir_version: 9, opset_import: ["" : 18] >
g (float[1,1,2,2] x) => (float[1,1,2,2] y)
< int64[1] two = {2}, int64[1] three = {3}, int64[1] axis = {1} >
{
  n = Neg (x)
  none = Slice (n, two, three, axis)
  e = Exp (none)
  joined = Concat <axis = 1> (n, e)
  y = Conv (joined, w)
}"""


@pytest.mark.parametrize("observed", [("x", "joined"), ("x", "none", "e", "joined")], ids=["range", "histogram"])
def test_a_tensor_without_values_has_no_size(tmp_path, observed):
    model = parser.parse_model(EMPTY)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), "f4"), "w"))
    images = np.random.default_rng(3).standard_normal((3, 1, 2, 2)).astype("f4")
    found = calibrate(model, saved(tmp_path, images), observed)
    assert found.largest["e"] == 0.0
    assert found.largest["joined"] == np.abs(images).max() and found.histograms["joined"].total == images.size
    assert not {"none", "e"} & found.thresholds("mse").keys()


SWALLOWED = """< ir_version: 9, opset_import: ["" : 18] >
g (float[1,1,SIDE,SIDE] x) => (float[1,1,SIDE,SIDE] y)
{
  root = Sqrt (x)
  above = Relu (root)
  y = Conv (above, w)
}"""
"""The range of ``root`` is taken, and what reads it may turn a NaN into a number."""


def squares(side: int) -> onnx.ModelProto:
    model = parser.parse_model(SWALLOWED.replace("SIDE", str(side)))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), "f4"), "w"))
    return model


def saved(folder: Path, images: np.ndarray) -> object:
    np.savez(folder / "images.npz", x=images)
    return open_calibration(str(folder / "images.npz"), None, {"x": images.shape})


@pytest.mark.parametrize("side", [1, 3, 40])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_nan_in_a_tensor_whose_range_is_taken_is_named_though_the_next_node_swallows_it(tmp_path, side, place):
    images = np.ones((3, 1, side, side), "f4")
    images[1].reshape(-1)[int(place * (side * side - 1))] = -1.0
    with pytest.raises(UsageError, match=r"'root', made by node .*\(Sqrt\), is NaN or infinite on image 1"):
        calibrate(squares(side), saved(tmp_path, images), ("above",))


def test_finite_values_whose_sum_overflows_are_accepted(tmp_path, build):
    model = build(
        "(float[1,1,2,2] x) => (float[1,1,2,2] y)", "n = Neg (x) r = Relu (n) y = Conv (r, w)", w=(1, 1, 1, 1)
    )
    images = np.full((2, 1, 2, 2), 2e38, "f4")
    images[1] = 1e38
    found = calibrate(model, saved(tmp_path, images), ("r",))
    assert found.ranges["n"] == np.float32(2e38) and found.histograms["r"].amax == 0.0


def test_every_value_of_a_small_tensor_is_counted_and_every_nth_of_a_large_one():
    large = np.random.default_rng(2).standard_normal(200_000).astype("f4")
    step = step_of(large.size)
    assert counted([large]).total == len(large[::step]) < large.size
    few = counted([large[::step]])
    assert np.array_equal(few.counts, counted([large]).counts) or few.exponent != counted([large]).exponent
