"""Images, boxes and masks go into a network's input and come back; Pillow and torch say where."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csa_deploy.data.geometry import Geometry, crop_box, geometry_of, resized_size
from csa_deploy.data.images import to_array
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.errors import UsageError
from csa_deploy.export.metadata import read_preprocessing, write_metadata
from csa_deploy.network import Anchor, Fit, Preprocessing

SIDES = st.integers(1, 60)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Preprocessing, tuple[int, int]]:
    """A preprocessing of any kind, and the size of an image that it takes."""
    fit = draw(st.sampled_from(get_args(Fit)))
    image = draw(SIZES)
    size = draw(SIZES)
    if fit == "pad":
        size = image[0] + draw(st.integers(0, 9)), image[1] + draw(st.integers(0, 9))
    crop = draw(st.floats(0.3, 1.0)) if fit == "crop" else 1.0
    anchor = draw(st.sampled_from(get_args(Anchor)))
    plain = {"mean": (0.0,), "std": (1.0,), "scale": 1.0, "interpolation": "nearest", "mode": "L"}
    return Preprocessing(size, crop=crop, fit=fit, anchor=anchor, fill=(114,), **plain), image  # type: ignore[arg-type]


def distinct(image: tuple[int, int]) -> np.ndarray:
    """A number of its own for each pixel."""
    return np.arange(image[0] * image[1], dtype=np.int32).reshape(image)


def clear_of_ties(geometry: Geometry) -> np.ndarray:
    """Pixels of the input whose centre is not on the edge between two pixels of the image, where rounding decides."""
    clear = []
    for extent, scale, offset in zip(geometry.input, geometry.scale, geometry.offset, strict=True):
        place = (np.arange(extent) + 0.5 - offset) / scale
        clear.append(np.abs(place - np.round(place)) > 1e-6)
    return np.logical_and.outer(*clear)


def by_pillow(preprocessing: Preprocessing, labels: np.ndarray) -> np.ndarray:
    """The mask in the input, by Pillow's resize and paste; -1 beside the image."""
    picture, image = Image.fromarray(labels), labels.shape
    height, width = preprocessing.size
    if preprocessing.fit == "crop":
        top, left, bottom, right = crop_box(preprocessing, image)
        return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST, box=(left, top, right, bottom)))
    rows, columns = resized_size(preprocessing, image)
    canvas = Image.new("I", (width, height), -1)
    centred = preprocessing.anchor == "center"
    place = ((width - columns) // 2, (height - rows) // 2) if centred else (0, 0)
    canvas.paste(picture.resize((columns, rows), Image.Resampling.NEAREST), place)
    return np.asarray(canvas)


@given(cases())
def test_masks_go_where_pillow_puts_them(case: tuple[Preprocessing, tuple[int, int]]) -> None:
    preprocessing, image = case
    labels, geometry = distinct(image), geometry_of(*case)
    expected, made = by_pillow(preprocessing, labels), geometry.mask(labels, -1)
    clear = clear_of_ties(geometry)
    assert made.shape == preprocessing.size and made.dtype == labels.dtype
    np.testing.assert_array_equal(made[clear], expected[clear])
    assert ((made == -1) == (expected == -1)).all(), "also where rounding decides, what is beside the image is known"


@given(cases())
def test_images_go_where_masks_go(case: tuple[Preprocessing, tuple[int, int]]) -> None:
    preprocessing, image = case
    pixels = np.random.default_rng(0).integers(0, 256, image, dtype=np.uint8)
    geometry = geometry_of(*case)
    made = to_array(Image.fromarray(pixels), preprocessing)[0]
    expected = geometry.mask(pixels.astype(np.int64), 114)
    clear = clear_of_ties(geometry)
    np.testing.assert_array_equal(made[clear], expected[clear])


@given(cases(), st.lists(st.tuples(*[st.floats(-20, 80)] * 4), max_size=5))
def test_boxes_come_back(case: tuple[Preprocessing, tuple[int, int]], given_boxes: list[Any]) -> None:
    geometry = geometry_of(*case)
    boxes = np.asarray(given_boxes, dtype=np.float64).reshape(-1, 4)
    np.testing.assert_allclose(geometry.boxes_back(geometry.boxes(boxes)), boxes, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(geometry.boxes(geometry.boxes_back(boxes)), boxes, rtol=1e-12, atol=1e-9)
    height, width = geometry.image
    clipped = geometry.boxes_back(boxes, clip=True)
    assert (clipped >= 0).all() and (clipped <= (width, height, width, height)).all()


@given(cases(), st.integers(0, 2**32 - 1))
def test_masks_come_back_as_torch_samples_them(case: tuple[Preprocessing, tuple[int, int]], seed: int) -> None:
    """``grid_sample`` at the places to which boxes of one pixel go, in double precision."""
    geometry = geometry_of(*case)
    (rows, columns), (height, width) = geometry.image, geometry.input
    found = np.random.default_rng(seed).integers(0, 200, geometry.input)
    y, x = np.arange(rows) + 0.5, np.arange(columns) + 0.5
    points = np.stack([np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))], axis=-1)
    corners = geometry.boxes(np.concatenate([points, points], axis=-1).reshape(-1, 4))[:, :2]
    grid = torch.from_numpy(corners / (width, height) * 2 - 1).reshape(1, rows, columns, 2)
    shifted = torch.from_numpy(found + 1.0).reshape(1, 1, height, width)
    sampled = torch.nn.functional.grid_sample(shifted, grid, "nearest", "zeros", align_corners=False)[0, 0].numpy() - 1
    clear = (np.abs(corners - np.round(corners)) > 1e-6).all(axis=1).reshape(rows, columns)
    made = geometry.mask_back(found, -1)
    assert made.shape == geometry.image
    np.testing.assert_array_equal(made[clear], sampled[clear])


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_mask_that_no_resize_blurs_comes_back_whole(fit: Fit) -> None:
    geometry = geometry_of(Preprocessing((32, 64), crop=1.0, fit=fit), (16, 32) if fit != "pad" else (30, 50))
    labels = distinct(geometry.image)
    np.testing.assert_array_equal(geometry.mask_back(geometry.mask(labels, -1), -1), labels)


def test_a_mask_of_a_smaller_map_comes_back_at_full_size() -> None:
    geometry = geometry_of(Preprocessing((32, 32), fit="letterbox"), (16, 32))
    assert geometry.offset == (8.0, 0.0)
    small = distinct((8, 8))
    whole = small.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(geometry.mask_back(small, -1), geometry.mask_back(whole, -1))


def test_letterbox_is_the_one_of_the_yolo_family() -> None:
    """Figures of ultralytics' LetterBox: ratio, rounded size, and left and top border."""
    assert resized_size(Preprocessing((416, 416), fit="letterbox"), (427, 640)) == (278, 416), "277.55 is rounded"
    for image, scale, border in (
        ((480, 640), 1.0, (80, 0)),
        ((1080, 1920), 1 / 3, (140, 0)),
        ((427, 640), 1.0, (106, 0)),
        ((375, 500), 1.28, (80, 0)),
        ((612, 612), 640 / 612, (0, 0)),
    ):
        geometry = geometry_of(Preprocessing((640, 640), fit="letterbox"), image)
        assert geometry.scale == pytest.approx((scale, scale), rel=2e-3)
        assert geometry.offset == border


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.tuples(st.integers(8, 1280), st.integers(8, 1280)))
def test_letterbox_rounds_as_published(image: tuple[int, int], size: tuple[int, int]) -> None:
    """Sizes by ``int(round(side * r))``, borders by ``int(round(half - 0.1))``, which every port of it repeats."""
    ratio = min(size[0] / image[0], size[1] / image[1])
    unpadded = [max(1, round(side * ratio)) for side in image]
    border = [round((full - own) / 2 - 0.1) for full, own in zip(size, unpadded, strict=True)]
    geometry = geometry_of(Preprocessing(size, fit="letterbox"), image)
    assert geometry.offset == tuple(border)
    assert geometry.scale == (unpadded[0] / image[0], unpadded[1] / image[1])


def test_the_border_is_filled_per_channel_in_the_order_of_the_mode() -> None:
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    plain = {"mean": (0.0,), "std": (1.0,), "scale": 1.0, "fit": "letterbox", "anchor": "corner"}
    for mode, inside in (("RGB", (10, 20, 30)), ("BGR", (30, 20, 10))):
        array = to_array(image, Preprocessing((4, 4), mode=mode, fill=(1, 2, 3), **plain))  # type: ignore[arg-type]
        assert array[:, 0, 0].tolist() == list(inside)
        assert array[:, 3, 3].tolist() == [1, 2, 3]


def test_an_image_larger_than_a_network_that_pads_is_refused() -> None:
    with pytest.raises(UsageError, match="image of 9x4 pixels is larger than the network's input, 8x8"):
        to_array(Image.new("RGB", (9, 4)), Preprocessing((8, 8), fit="pad"))
    assert to_array(Image.new("RGB", (8, 4)), Preprocessing((8, 8), fit="pad")).shape == (3, 8, 8)


def test_targets_go_with_their_kind() -> None:
    geometry = geometry_of(Preprocessing((8, 8), fit="letterbox"), (4, 8))
    mask = geometry.target(Mask(np.ones((4, 8), np.uint8)))
    assert isinstance(mask, Mask) and mask.labels[:2].tolist() == [[255] * 8] * 2 and (mask.labels[2:6] == 1).all()
    doubled = geometry_of(Preprocessing((8, 16), fit="resize"), (4, 8))
    boxes = doubled.target(Boxes([[1, 1, 2, 3]], [5], crowd=[True]))
    assert isinstance(boxes, Boxes) and boxes.xyxy.tolist() == [[2, 2, 4, 6]]
    assert boxes.areas.tolist() == [8.0] and boxes.labels.tolist() == [5] and boxes.crowd.all()
    assert geometry.target(3) == 3


def test_it_travels_in_the_metadata_and_what_was_written_before_reads() -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    boxed = Preprocessing((8, 8), fit="letterbox", fill=(114, 1, 2), anchor="corner")
    write_metadata(model, {}, boxed)
    assert read_preprocessing(model) == boxed
    plain = Preprocessing((8, 8)).to_json()
    assert not {"fit", "fill", "anchor"} & plain.keys(), "files of networks that crop stay as they were"
    assert Preprocessing.from_json(json.loads(json.dumps(plain))) == Preprocessing((8, 8))
    assert Preprocessing.from_json(json.loads(json.dumps(boxed.to_json()))) == boxed


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fit", "stretch", "fit 'stretch' is not one of crop, letterbox, pad, resize"),
        ("anchor", "left", "anchor 'left' is not one of center, corner"),
        ("fill", (256,), "fill"),
        ("fill", (1, 2), "fill"),
        ("fill", (-1,), "fill"),
    ],
)
def test_other_values_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing((8, 8), **{field: value})
