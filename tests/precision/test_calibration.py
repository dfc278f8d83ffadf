"""Calibration: one pass, resumed, refused and forgiving; TensorRT's cache."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.precision import calibration
from csa_deploy.precision.calibration import calibrate, load_statistics, save_statistics, statistics_key
from csa_deploy.precision.calibration_data import RANDOM, missing_classes, open_calibration
from csa_deploy.precision.histogram import Histogram, Scratch
from csa_deploy.precision.observer import CUDA, providers
from csa_deploy.precision.qdq_placement import place
from csa_deploy.runners.onnxruntime_runner import CPU

PREPROCESSING = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
SHAPES = {"x": (1, 3, 16, 16)}


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture()
def photos(tmp_path) -> Path:
    """Twelve images of several sizes and modes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index, (mode, shape) in enumerate([("RGB", (20, 30, 3)), ("L", (40, 17)), ("RGBA", (16, 16, 4))] * 4):
        Image.fromarray(draw.integers(0, 256, shape, np.uint8), mode).save(folder / f"{index:02d}.png")
    cmyk = Image.fromarray(draw.integers(0, 256, (24, 24, 4), np.uint8), "CMYK")
    cmyk.save(folder / "cmyk.jpg")
    Image.fromarray(draw.integers(0, 65536, (24, 24)).astype(np.uint16)).save(folder / "deep.png")
    return folder


def open_photos(folder: Path, **settings):
    return open_calibration(str(folder), PREPROCESSING, SHAPES, **settings)


def same(a, b) -> bool:
    return all(
        np.array_equal(h.counts, b.histograms[n].counts) and h.amax == b.histograms[n].amax
        for n, h in a.histograms.items()
    )


@pytest.mark.shows("MEA-19")
def test_statistics_are_those_of_the_activations(model, photos):
    import onnxruntime

    data = open_photos(photos)
    taken = calibrate(model, data, ("x", "r"))
    session = onnxruntime.InferenceSession(_with_output(model, "r"))
    expected, scratch = {"x": Histogram(), "r": Histogram()}, Scratch()
    for batch in data.batches(1):
        array = batch.inputs["image"]
        expected["x"].add(array, scratch)
        expected["r"].add(session.run(["r"], {"x": array})[0], scratch)
    assert taken.images == 14
    for name, histogram in taken.histograms.items():
        assert histogram.total == expected[name].total
        assert histogram.amax == pytest.approx(expected[name].amax, rel=1e-5)
    assert "c" in taken.ranges and taken.ranges["c"] >= taken.histograms["r"].amax


def _with_output(model, name):
    import onnx

    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return extended.SerializeToString()


def test_a_static_batch_counts_no_sample_twice(make_tiny, model, photos):
    data = open_photos(photos)
    one = calibrate(model, data, ("x",))
    four = calibrate(make_tiny(inputs=(4, 3, 16, 16)), data, ("x",))  # 14 images: the last batch has two
    assert same(one, four)
    assert four.images == 14


def test_images_side_by_side_give_the_same_as_one_after_the_other(model, photos):
    alone, together = (calibrate(model, open_photos(photos), ("x", "r"), threads=n) for n in (1, 2))
    assert same(alone, together)
    assert alone.ranges == together.ranges
    assert alone.images == together.images == 14


def test_an_interrupted_pass_goes_on_and_gives_the_same(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_SAVE_EVERY", 0.0)
    unfinished = tmp_path / "unfinished.npz"
    data = open_photos(photos)
    read = []

    def interrupt(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, data, ("x", "r"), threads=2, unfinished=unfinished, progress=interrupt)
    assert unfinished.is_file()
    resumed = calibrate(
        model,
        data,
        ("x", "r"),
        threads=2,
        unfinished=unfinished,
        progress=lambda done, total: read.append((done, total)),
    )
    assert read[0] == (8, 14)
    assert same(resumed, calibrate(model, data, ("x", "r")))
    assert resumed.images == 14
    read.clear()  # what comes after it may fail: a finished pass is taken over as well
    again = calibrate(model, data, ("x", "r"), unfinished=unfinished, progress=lambda *done: read.append(done))
    assert same(again, resumed) and again.images == 14 and not read


def test_files_skipped_before_an_interruption_are_still_counted(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_SAVE_EVERY", 0.0)
    (photos / "00.png").write_bytes(b"no image")

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, open_photos(photos), ("x",), unfinished=tmp_path / "u.npz", progress=interrupt)
    resumed = calibrate(model, open_photos(photos), ("x",), unfinished=tmp_path / "u.npz")
    assert (resumed.images, list(resumed.skipped)) == (13, ["00.png"])


def test_an_unwritable_place_does_not_stop_calibration(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_SAVE_EVERY", 0.0)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert calibrate(model, open_photos(photos), ("x",), unfinished=blocked / "unfinished.npz").images == 14


def test_statistics_are_stored_byte_for_byte_and_refused_for_anything_else(model, make_tiny, photos, tmp_path):
    data = open_photos(photos)
    taken = calibrate(model, data, ("x", "r"))
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_statistics(taken, first)
    save_statistics(calibrate(model, data, ("x", "r")), second)
    assert first.read_bytes() == second.read_bytes()
    assert same(taken, load_statistics(first, taken.key))
    others = {
        "graph": statistics_key(make_tiny(seed=1), data, ("x", "r")),
        "data": statistics_key(model, open_photos(photos, samples=3), ("x", "r")),
        "preprocessing": dataclasses.replace(taken.key, preprocessing="another"),
        "tensors": statistics_key(model, data, ("x",)),
    }
    for what, key in others.items():
        with pytest.raises(UsageError, match=f"of another {what}"):
            load_statistics(first, key)
    first.write_bytes(first.read_bytes()[:-40])
    with pytest.raises(UsageError, match="no readable calibration statistics"):
        load_statistics(first, taken.key)


def test_a_pixel_changed_changes_the_key(model, photos):
    before = open_photos(photos).fingerprint()
    Image.new("RGB", (20, 30)).save(photos / "00.png")
    assert open_photos(photos).fingerprint() != before


def test_unreadable_files_are_skipped_and_counted_up_to_a_share(model, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n")
    data = open_photos(photos)
    taken = calibrate(model, data, ("x",))
    assert taken.images == 14
    assert list(taken.skipped) == ["broken.png"]
    for index in range(4):
        shutil.copy(photos / "broken.png", photos / f"broken{index}.png")
    with pytest.raises(
        UsageError, match=r"2 files cannot be read so far, more than a tenth of all 19; the first is .*broken\.png"
    ):
        calibrate(model, open_photos(photos), ("x",))


def test_nan_is_named_with_layer_and_image(build):
    model = build("(float[1,1,2,2] x) => (float[1,1,2,2] y)", "l = Log (x) y = Conv (l, w)", w=(1, 1, 1, 1))
    data = open_calibration(RANDOM, None, {"x": (1, 1, 2, 2)}, samples=3)
    with pytest.raises(UsageError, match=r"'l', made by node n0 \(Log\), is NaN or infinite on image random-0-\d"):
        calibrate(model, data, place(model).tensors)


def test_few_images_and_missing_classes_are_said(model, photos, caplog):
    calibrate(model, open_photos(photos), ("x",))
    assert "calibrated on 14 images; 64 or more are recommended" in caplog.text
    assert missing_classes({"0": 3, "2": 1}, ("cat", "dog", "cow")) == ["dog"]
    assert missing_classes({}, ("cat",)) == []


def test_cuda_is_taken_before_the_cpu_and_computes_in_full_fp32():
    assert providers(["TensorrtExecutionProvider", CUDA, CPU]) == [(CUDA, {"use_tf32": "0"}), (CPU, {})]
    assert providers(["AzureExecutionProvider", CPU]) == [(CPU, {})]


def test_labels_types_and_shapes_count_beside_the_bytes(tmp_path):
    """A search is held to the labels: with others, what it found is of other data."""
    arrays = np.arange(24, dtype="f4").reshape(2, 3, 4)
    found = []
    for inputs, labels in (
        ({"x": arrays}, [0, 1]),
        ({"x": arrays}, [1, 0]),
        ({"x": arrays}, None),
        ({"x": arrays.reshape(2, 4, 3)}, [0, 1]),
        ({"x": arrays.view("i4")}, [0, 1]),
        ({"z": arrays}, [0, 1]),
    ):
        given = inputs if labels is None else {**inputs, "labels": np.array(labels)}
        np.savez(tmp_path / "x.npz", **given)
        shapes = {name: (1, *array.shape[1:]) for name, array in inputs.items()}
        found.append(open_calibration(str(tmp_path / "x.npz"), None, shapes).fingerprint())
    assert len(set(found)) == len(found)
