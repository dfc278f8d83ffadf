"""How images become the input of an ONNX file of somebody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from csa_deploy.config import make_config
from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.images import to_array
from csa_deploy.errors import UsageError
from csa_deploy.export.imaging import preprocessing_of
from csa_deploy.export.metadata import read_preprocessing, write_metadata
from csa_deploy.network import Preprocessing
from csa_deploy.verify.subject import open_subject


def stated(make_tiny: Any, shape: tuple[int, ...], **settings: Any) -> Preprocessing | None:
    return preprocessing_of(make_tiny(inputs=shape), make_config(settings))[0]


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((1, 1, 8, 9), ("L", "NCHW", (8, 9))),
        ((2, 3, 8, 9), ("RGB", "NCHW", (8, 9))),
        ((1, 8, 9, 3), ("RGB", "NHWC", (8, 9))),
        ((1, 8, 9, 1), ("L", "NHWC", (8, 9))),
        ((1, 4, 8, 9), None),
    ],
)
def test_preprocessing_is_assumed_only_for_images(make_tiny: Any, shape: tuple[int, ...], want: Any) -> None:
    found = stated(make_tiny, shape)
    assert (found and (found.mode, found.layout, found.size)) == want


def test_only_classifiers_are_cropped_unasked(make_tiny: Any) -> None:
    model = make_tiny()
    assert preprocessing_of(model, make_config())[0] == Preprocessing((16, 16))
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", 1, [1, 8, 16, 16]))
    assert preprocessing_of(model, make_config())[0] == Preprocessing((16, 16), crop=1.0)


def test_what_is_given_goes_before_what_is_stated_and_assumed(make_tiny: Any) -> None:
    found = stated(make_tiny, (1, 3, 8, 9), mean="104,117,123", scale=1, channels="bgr", crop=1)
    assert found == Preprocessing((8, 9), "BGR", (104, 117, 123), (1.0,), crop=1.0, scale=1.0)  # std is neutral
    assert stated(make_tiny, (1, 3, 8, 9), std="0.5") == Preprocessing((8, 9), "RGB", (0.0,), (0.5,))
    model = make_tiny(inputs=(1, 3, 8, 9))
    write_metadata(model, {}, Preprocessing((8, 9), std=(0.3,), classes=("a", "b")))
    made, said = preprocessing_of(model, make_config({"channels": "BGR", "interpolation": "nearest"}))
    mean = (0.406, 0.456, 0.485)  # a colour keeps its own
    assert made == Preprocessing((8, 9), "BGR", mean, (0.3,), "nearest", classes=("a", "b"))
    assert "as given" in said and preprocessing_of(model, make_config())[1] == ""


def test_a_colour_keeps_its_numbers_in_another_order_of_channels(make_tiny: Any) -> None:
    rgb, bgr = stated(make_tiny, (1, 3, 8, 9)), stated(make_tiny, (1, 3, 8, 9), channels="bgr")
    assert rgb is not None and bgr is not None and bgr.mean == rgb.mean[::-1] != rgb.mean and bgr.std == rgb.std[::-1]


@pytest.mark.shows("MEA-09")
def test_what_is_assumed_is_said_with_the_flags_that_state_it(make_tiny: Any) -> None:
    assert "--mean, --std, --scale, --channels" in preprocessing_of(make_tiny(inputs=(1, 3, 8, 9)), make_config())[1]


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((1, 3, 8, 9), {"channels": "grey"}, "no image in L and NCHW"),
        ((1, 3, 8, 9), {"layout": "nhwc"}, "no image in RGB and NHWC"),
        ((1, 1, 8, 9), {"mean": "1,2,3"}, "not one number, or one for each of 1 channels"),
        ((1, 3, 8, 9), {"mean": "104,117,123"}, "is scale 1 missing"),
        ((1, 4, 8, 9), {"mean": "0.5"}, "--mean: the network does not take one image"),
    ],
)
def test_settings_that_do_not_fit_the_input(make_tiny: Any, shape: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        stated(make_tiny, shape, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": "1,2"}, "give one finite number, or one per channel"),
        ({"mean": "nan"}, "finite"),
        ({"mean": "a"}, "numbers are written with commas"),
        ({"std": "0.2,0,0.2"}, "a standard deviation is not 0"),
        ({"scale": "0"}, "a scale is a number above 0"),
        ({"scale": "1/0"}, "a scale is a number above 0"),
        ({"crop": 0}, "greater than 0"),
        ({"channels": "gbr"}, "'rgb', 'bgr' or 'grey'"),
        ({"layout": "chw"}, "'nchw' or 'nhwc'"),
        ({"interpolation": "lanczos"}, "'nearest', 'bilinear' or 'bicubic'"),
    ],
)
def test_values_that_mean_nothing(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_config(settings)


def test_equal_numbers_are_all_kept() -> None:
    assert make_config({"mean": "0.5,0.4,0.5"}).mean == (0.5, 0.4, 0.5)
    assert make_config({"std": [0.5, 0.5, 0.5]}).std == (0.5, 0.5, 0.5)
    assert make_config({"scale": "1/255"}).scale == 1 / 255


@pytest.mark.parametrize("mode", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("scale", [None, 1.0, 1 / 255, 0.017])
@pytest.mark.shows("MEA-09")
def test_values_are_those_of_the_formula(mode: Any, layout: Any, scale: float | None) -> None:
    """Against the formula in FP64, pixel by pixel, in plain Python."""
    draw = np.random.default_rng(6)
    pixels = draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    channels = 1 if mode == "L" else 3
    mean, std = draw.uniform(0, 2, channels), draw.uniform(0.2, 3, channels)
    how = Preprocessing((5, 7), mode, tuple(mean), tuple(std), "nearest", 1.0, scale=scale, layout=layout)
    got = to_array(image, how)
    assert got.dtype == np.float32 and got.flags["C_CONTIGUOUS"] and got.shape == how.shape
    grey = np.asarray(image.convert("L"))
    for row in range(5):
        for column in range(7):
            for channel in range(channels):
                source = {"RGB": channel, "BGR": 2 - channel}.get(mode)
                pixel = float(grey[row, column] if source is None else pixels[row, column, source])
                want = (pixel * (1 / 255 if scale is None else scale) - mean[channel]) / std[channel]
                place = (channel, row, column) if layout == "NCHW" else (row, column, channel)
                assert got[place] == pytest.approx(want, rel=1e-6, abs=1e-6 * 255 * (scale or 1 / 255))


def test_one_number_stands_for_all_channels() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8))
    one = Preprocessing((4, 4), mean=(0.5,), std=(0.25,), crop=1.0)
    three = Preprocessing((4, 4), mean=(0.5,) * 3, std=(0.25,) * 3, crop=1.0)
    np.testing.assert_array_equal(to_array(image, one), to_array(image, three))


@pytest.mark.parametrize(
    "broken",
    [
        {"mode": "rgb"},
        {"interpolation": "area"},
        {"layout": "nchw"},
        {"crop": 1.5},
        {"std": (0.0,)},
        {"mean": (1.0, 2.0)},
        {"scale": 0.0},
        {"size": (0, 4)},
    ],
)
def test_other_values_are_refused_when_it_is_made(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Preprocessing(**{"size": (4, 4), **broken})


@pytest.mark.shows("MEA-09")
def test_all_of_it_travels_in_the_file(make_tiny: Any) -> None:
    model = make_tiny()
    how = Preprocessing((4, 5), "BGR", (0.1, 0.2, 0.3), (2,), "nearest", 0.5, ("a",), 1.0, "NHWC")
    write_metadata(model, {}, how)
    assert read_preprocessing(model) == how
    entry = next(p for p in model.metadata_props if p.key == "csa_deploy.preprocessing")
    entry.value = entry.value.replace(', "scale": 1.0', "").replace('"layout": "NHWC", ', "")  # of an older version
    old = read_preprocessing(model)
    assert old is not None and old.scale is None and old.layout == "NCHW"


def test_a_folder_feeds_a_network_with_channels_last(tmp_path: Any) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    dataset = open_dataset(tmp_path, Preprocessing((4, 6), layout="NHWC"))
    batch = next(iter(dataset.batches(1)))
    assert batch.feed({"x": (1, 4, 6, 3)})["x"].shape == (1, 4, 6, 3)
    with pytest.raises(UsageError, match="do not fit"):
        batch.feed({"x": (1, 3, 4, 6)})


def test_evaluate_takes_a_foreign_file_with_the_same_settings(make_tiny: Any, tmp_path: Any) -> None:
    model = make_tiny()
    for axis, symbol in ((0, "N"), (2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = symbol
    onnx.save(model, tmp_path / "open.onnx")
    settings = {"network": str(tmp_path / "open.onnx"), "size": 16, "mean": 0.5, "std": 0.25, "channels": "bgr"}
    subject = open_subject(make_config({**settings, "batch": 3}))
    assert [spec.shape for spec in subject.runner.input_specs] == [(3, 3, 16, 16)]
    assert [spec.shape for spec in subject.runner.output_specs] == [(3, 10)]
    assert subject.preprocessing == Preprocessing((16, 16), "BGR", (0.5,), (0.25,))
    with pytest.raises(UsageError, match="--checkpoint is not for an ONNX file"):
        open_subject(make_config({**settings, "checkpoint": "weights.pth"}))
    with pytest.raises(UsageError, match="--mean is not for a module"):
        open_subject(make_config({"network": "csa_digits", "mean": 0.5}))
