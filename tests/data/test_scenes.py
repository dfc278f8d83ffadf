"""Scenes: the same everywhere, with ground truth that follows from the layers."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from csa_deploy.data import named
from csa_deploy.data.dataset import open_dataset, open_split
from csa_deploy.data.digit_drawing import INK, DigitShape, drawn_digit
from csa_deploy.data.packages import load_digits
from csa_deploy.data.scenes import (
    CONTRAST,
    CROWDED,
    MOST_HIDDEN,
    SIDE,
    TEST_PHOTOGRAPHS,
    USUAL,
    Scene,
    Scenes,
    SplitMix,
    photographs,
)
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.network import Preprocessing

PARTS = {part: Scenes(train=part == "train") for part in ("train", "test")}
MANY = [(part, index) for part in PARTS for index in range(25)]
WITH_BACKGROUND = Preprocessing((SIDE, SIDE), crop=1.0, classes=("background", *named.DIGIT_CLASSES))
WITHOUT = Preprocessing((SIDE, SIDE), crop=1.0, classes=named.DIGIT_CLASSES)


def digest(scene: Scene) -> str:
    parts = [scene.image, scene.mask, scene.boxes, scene.labels, scene.visible]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:16]


def owners(scene: Scene) -> np.ndarray:
    """Index of the uppermost digit of each pixel (-1: none), pixel by pixel."""
    owner = np.full((SIDE, SIDE), -1)
    for index, layer in enumerate(scene.layers):
        for y, row in enumerate(layer.coverage):
            for x, value in enumerate(row):
                if value >= INK:
                    owner[layer.y + y, layer.x + x] = index
    return owner


def test_the_stream_is_splitmix64():
    stream = SplitMix()
    stream.state = 1234567  # the reference implementation's numbers for this seed
    assert [stream.word() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_below_are_even():
    stream = SplitMix(1, 2, 3)
    counts = np.bincount([stream.below(7) for _ in range(7000)], minlength=7)
    assert len(counts) == 7 and ((counts - 1000) ** 2 / 1000).sum() < 22.5  # chi square, 6 degrees, 0.1 %
    assert {stream.between(3, 5) for _ in range(100)} == {3, 4, 5}


@pytest.mark.parametrize(
    ("part", "index", "expected"),
    [
        ("train", 0, "0900c68e55172b5b"),
        ("train", 1, "b5a4686d96639835"),
        ("train", 499, "2c0d06815381cd43"),
        ("test", 0, "2b2beb9ab0ca1b77"),
        ("test", 1, "981759b36fe81e32"),
        ("test", 499, "b64e0f11173dfa97"),
    ],
)
def test_scenes_are_the_same_everywhere(part, index, expected):
    assert digest(PARTS[part].scene(index)) == expected


def test_photographs_are_decoded_as_ever():
    """Where this fails and scenes differ, the decoder of JPEG files has changed."""
    decoded = b"".join(np.asarray(image).tobytes() for image in PARTS["test"]._photographs)
    assert hashlib.sha256(decoded).hexdigest()[:16] == "a02c8df9d032635c"


def test_a_scene_depends_on_part_seed_and_index_alone():
    code = (
        "from csa_deploy.data.scenes import Scenes; import hashlib;"
        "print(hashlib.sha256(Scenes(train=False).scene(7).image.tobytes()).hexdigest())"
    )
    alone = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
    )
    assert alone.stdout.strip() == hashlib.sha256(PARTS["test"].scene(7).image.tobytes()).hexdigest()
    seen = {digest(PARTS[part].scene(index, seed)) for part in PARTS for index in (0, 1) for seed in (0, 1)}
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("part", "index", "style"), [(*one, USUAL) for one in MANY] + [(*one, CROWDED) for one in MANY[:10]]
)
def test_ground_truth_follows_from_the_layers(part, index, style):
    scene = PARTS[part].scene(index, style=style)
    owner = owners(scene)
    assert (scene.mask == np.where(owner < 0, 0, scene.labels[owner] + 1)).all()
    for number, (box, layer) in enumerate(zip(scene.boxes.tolist(), scene.layers, strict=True)):
        places = [(y, x) for y in range(SIDE) for x in range(SIDE) if owner[y, x] == number]
        ys, xs = zip(*places, strict=True)
        assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        area = int((layer.coverage >= INK).sum())
        assert scene.visible[number] == len(places)
        assert scene.occlusion[number] == pytest.approx(1 - len(places) / area, abs=1e-15)
        assert scene.occlusion[number] <= MOST_HIDDEN[0] / MOST_HIDDEN[1] + 1e-15
    assert len(scene.labels) <= style.digits[1]
    assert style == CROWDED or len(scene.labels) >= style.digits[0]


@pytest.mark.parametrize(("part", "index"), MANY[::3])
def test_pictures_are_the_layers_on_the_background_and_each_stands_out(part, index):
    scenes = PARTS[part]
    scene = scenes.scene(index)
    image = scenes._background(SplitMix(0, index, int(scenes.train)), varied=False)[0].astype(float)
    luma = np.asarray([77, 150, 29]) / 256
    for layer in scene.layers:
        contrast = abs(layer.colour @ luma - (image[layer.box] @ luma).mean())
        assert contrast > CONTRAST - 2 or set(layer.colour.tolist()) in ({0}, {255})
        share = layer.coverage[..., None] / 255
        image[layer.box] = np.floor(image[layer.box] * (1 - share) + layer.colour * share + 0.5 - 1e-9)
    assert np.abs(scene.image - image).max() <= len(scene.layers)  # halves may be rounded up or down
    assert np.mean(scene.image != image) < 0.01


def test_a_digit_without_a_covered_pixel_is_left_out():
    """Among 4,000 digits there is one at 12 pixels and some angles; here all strokes are too thin."""
    faint = np.where(np.eye(28, dtype=bool), INK, 0).astype(np.uint8)
    assert drawn_digit(faint, 12, 0).shape == (0, 0)
    scenes = Scenes(train=True)
    scenes._digits = np.stack([faint]), np.asarray([3])
    for style in (USUAL, CROWDED):
        sizes = [len(scenes.scene(index, style=style).labels) for index in range(30)]
        assert 0 in sizes  # and none of them an error


def test_crowded_scenes_have_three_times_the_digits_and_other_photographs():
    plain, crowded = ([PARTS["train"].scene(index, style=style) for index in range(30)] for style in (USUAL, CROWDED))
    assert np.mean([len(s.labels) for s in crowded]) > 2.5 * np.mean([len(s.labels) for s in plain])
    assert len({digest(scene) for scene in plain + crowded}) == 60


def test_some_digits_are_hidden_in_part_and_some_scenes_are_grey():
    scenes = [PARTS[part].scene(index) for part, index in MANY]
    hidden = np.concatenate([scene.occlusion for scene in scenes])
    assert 0.05 < (hidden > 0).mean() < 0.4
    grey = [bool((scene.image == scene.image[..., :1]).all()) for scene in scenes]
    assert 0.1 < np.mean(grey) < 0.5
    assert {len(scene.labels) for scene in scenes} == set(range(USUAL.digits[0], USUAL.digits[1] + 1))


SHAPES = [
    DigitShape(),
    DigitShape(slant=-32, narrow=152, low=112, stroke=40),
    DigitShape(slant=32, narrow=112, low=144),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [-20, -7, 0, 13, 20])
@pytest.mark.parametrize("length", [12, 17, 30, 48])
def test_digits_are_turned_scaled_and_varied_as_scipy_does(length, degrees, shape):
    pixels = load_digits(train=True)[0][37 * length % 4000]
    drawn = drawn_digit(pixels, length, degrees, shape)
    pixels = np.minimum(pixels + shape.stroke * (pixels > 0).astype(int), 255)
    rows, columns = np.flatnonzero((pixels >= INK).any(axis=1)), np.flatnonzero((pixels >= INK).any(axis=0))
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    angle = np.radians(degrees)
    turn = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.asarray([[shape.low, 0], [shape.slant, shape.narrow]]) / 128 @ turn * longer / length
    half = 64  # four samples per pixel, on a canvas that holds every digit
    places = (np.arange(-2 * half, 2 * half) + 0.5) / 2
    centre = np.asarray([rows[0] + rows[-1], columns[0] + columns[-1]]) / 2
    grid = np.stack(np.meshgrid(places, places, indexing="ij"))
    where = np.einsum("ij,jyx->iyx", inverse, grid) + centre[:, None, None]
    fine = ndimage.map_coordinates(pixels.astype(float), where, order=1, mode="grid-constant")
    expected = fine.reshape(2 * half, 2, 2 * half, 2).mean(axis=(1, 3))
    ys, xs = (np.flatnonzero((expected >= INK).any(axis=axis)) for axis in (1, 0))
    window = expected[ys[0] - 1 : ys[-1] + 2, xs[0] - 1 : xs[-1] + 2]
    if window.shape == drawn.shape:  # a pixel of just half coverage may fall on either side
        assert np.abs(window - drawn).max() <= 2
    else:
        assert np.abs(np.subtract(window.shape, drawn.shape)).max() <= 1
        assert np.abs(np.sort(expected[(expected >= INK)])[-50:] - np.sort(drawn[drawn >= INK])[-50:]).max() <= 2
    inked = drawn >= INK
    assert inked[1].any() and inked[-2].any() and inked[:, 1].any() and inked[:, -2].any()
    if degrees == 0 and shape == DigitShape():
        assert abs(max(inked.any(axis=1).sum(), inked.any(axis=0).sum()) - length) <= 2


def test_parts_share_neither_photographs_nor_digits(monkeypatch):
    train, test = (set(photographs(train=train)) for train in (True, False))
    assert not train & test and test == set(TEST_PHOTOGRAPHS) and len(train) == 20
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= test
    digits = {train: {p.tobytes() for p in load_digits(train=train)[0]} for train in (True, False)}
    assert not digits[True] & digits[False]
    asked = []
    monkeypatch.setattr(
        "csa_deploy.data.packages.load_digits",
        lambda *, train: asked.append(train) or (np.full((1, 28, 28), 255, np.uint8), np.asarray([3])),
    )
    for train in (True, False):
        assert set(Scenes(train=train).scene(0).labels) == {3}
    assert asked == [True, False]


def test_the_data_set_gives_masks_or_boxes_by_the_networks_classes():
    masks, boxes = (open_dataset("scenes", how, limit=3) for how in (WITH_BACKGROUND, WITHOUT))
    assert (masks.task, boxes.task) == ("segmentation", "detection")
    assert len(open_dataset("scenes", WITHOUT)) == 500
    (batch,), (other,) = masks.batches(3), boxes.batches(3)
    assert batch.labels is None and batch.inputs["image"].shape == (3, 3, SIDE, SIDE)
    assert np.array_equal(batch.inputs["image"], other.inputs["image"])
    for place, identity in enumerate(batch.ids):
        scene = PARTS["test"].scene(int(identity.removeprefix("test-")))
        mask, found = batch.targets[place], other.targets[place]
        assert isinstance(mask, Mask) and np.array_equal(mask.labels, scene.mask)
        assert isinstance(found, Boxes) and np.array_equal(found.xyxy, scene.boxes)
        assert np.array_equal(found.labels, scene.labels)
        assert found.areas.tolist() == [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in scene.boxes.tolist()]


def test_the_split_travels_to_workers_and_ends():
    split = open_split("scenes", WITHOUT)
    train, test = split.train.samples, split.held_out.samples
    assert train[3].id != test[3].id and len(train) == len({sample.id for sample in train})
    again = pickle.loads(pickle.dumps(train))
    assert np.array_equal(np.asarray(again[3].image()), np.asarray(train[3].image()))
    with pytest.raises(IndexError):
        test[500]
