"""Scenes: real handwritten digits on real photographs, made on the fly, with exact ground truth.

A scene follows from its part (train or test), seed and index alone. Everything is integer arithmetic on an own random
stream, so it is the same everywhere, whatever the versions of NumPy and Pillow. Only two things come from outside: the
decoder of the photographs that are JPEG files (libjpeg-turbo in Pillow's wheels, whose results do not change), and
cosine and sine of whole degrees, rounded to 16 bits.

Training scenes hold digits of the training split on photographs of their own, test scenes the held-out digits on other
photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from csa_deploy.data.digit_drawing import INK, DigitShape, drawn_digit
from csa_deploy.data.samples import Endless, Sample
from csa_deploy.data.targets import Boxes, Mask, Task

TRAIN_SCENES, TEST_SCENES = 50_000, 500
"""Scenes of the data sets ``scenes:train`` and ``scenes``; a training sees as many others in each further epoch."""
SIDE = 128
"""Height and width of a scene in pixels."""
DEGREES = 20
"""Digits are turned by at most so many degrees, so that 6 and 9 stay what they are."""
MOST_HIDDEN = (1, 3)
"""At most this share (a fraction) of a digit's pixels is hidden by later ones."""
CONTRAST = 96
"""Least difference in luma (of 255) between a digit's colour and the mean of what lies behind it."""
_PLACES, _COLOURS = 10, 16  # attempts
_WORD = (1 << 64) - 1

# scikit-image's and foolbox's; the two views of one motorcycle stay together.
TEST_PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coins.png", "gravel.png", "motorcycle_left.png", "motorcycle_right.png"),
    *("rocket.jpg", "imagenet_12_741.jpg", "imagenet_13_471.jpg", "imagenet_14_129.jpg", "imagenet_15_99.jpg"),
    *("imagenet_16_251.jpg", "imagenet_17_22.jpg", "imagenet_18_317.jpg", "imagenet_19_305.jpg"),
)


@dataclass(frozen=True)
class Style:
    """How scenes of one kind are drawn; ground truth is exact in all of them.

    Attributes:
        digits: least and most digits of a scene; fewer than drawn where no place was found.
        scales: least and most length in pixels of a digit's longer side before it is turned.
        varied: whether photographs and digits are varied beyond that: two photographs on top of each other, quarter
            turns, exchanged and inverted colours and contrast; slant, width, height and stroke of a digit.
    """

    digits: tuple[int, int] = (1, 6)
    scales: tuple[int, int] = (12, 48)
    varied: bool = False


USUAL = Style()
"""Of the data sets ``scenes`` and ``scenes:train``."""
VARIED = Style(varied=True)
"""What a training sees: 20 photographs are few, and a network that knows them well finds digits on others."""
CROWDED = Style(digits=(6, 14), varied=True)
"""Of a training's first epochs: nearly three times the digits for the same computation."""


@dataclass(frozen=True)
class DrawnDigit:
    """One digit as it was drawn: its corner (x, y), its colour and its coverage, uint8 (h, w) of 0..255."""

    x: int
    y: int
    colour: np.ndarray
    coverage: np.ndarray

    @property
    def box(self) -> tuple[slice, slice]:
        """The pixels of the scene that the coverage lies on."""
        height, width = self.coverage.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


@dataclass(frozen=True)
class Scene:
    """A picture and its ground truth; n digits, in the order in which they were drawn.

    Attributes:
        image: uint8 (H, W, 3), RGB; a grey scene has three equal channels.
        mask: uint8 (H, W): 0 background, 1 + d where the uppermost digit d covers at least half of the pixel.
        boxes: int64 (n, 4): x0, y0, x1, y1 in pixel edges (x1 and y1 lie behind the last pixel), tight around the
            digit's visible pixels.
        labels: int64 (n,): 0 to 9.
        visible: int64 (n,): the digit's pixels that no later digit hides.
        occlusion: float64 (n,): share of the digit's pixels that later digits hide.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    visible: np.ndarray
    occlusion: np.ndarray
    layers: tuple[DrawnDigit, ...]

    def target(self, task: Task) -> Mask | Boxes:
        """What is true of the picture, for a task."""
        if task == "segmentation":
            return Mask(self.mask)
        return Boxes(self.boxes, self.labels)  # a stroke covers a third of its box: sizes are those of boxes


class SplitMix:
    """Random numbers: SplitMix64 (Steele, Lea and Flood, 2014), started from several whole numbers."""

    def __init__(self, *start: int) -> None:
        self.state = 0
        for number in start:
            self.state = self.state ^ (number & _WORD)
            self.state = self.word()

    def word(self) -> int:
        """The next 64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _WORD
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        return z ^ (z >> 31)

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        return (self.word() * count) >> 64

    def between(self, least: int, most: int) -> int:
        """A number from ``least`` to ``most``."""
        return least + self.below(most - least + 1)


class Scenes:
    """All scenes of one part; the photographs and digits are read at the first use.

    Args:
        train: training scenes; else test scenes.
    """

    def __init__(self, *, train: bool) -> None:
        self.train = train

    def scene(self, index: int, seed: int = 0, style: Style = USUAL) -> Scene:
        """The scene of this index; there is no end of them.

        Raises:
            EnvironmentLacksError: a package that holds the images is not installed.
        """
        stream = SplitMix(seed, index, int(self.train))
        canvas = _Canvas(*self._background(stream, varied=style.varied))
        pixels, labels = self._digits
        for _ in range(stream.between(*style.digits)):
            chosen = stream.below(len(labels))
            length, degrees = stream.between(*style.scales), stream.between(-DEGREES, DEGREES)
            coverage = drawn_digit(pixels[chosen], length, degrees, _shape(stream) if style.varied else DigitShape())
            if coverage.size and (place := canvas.place(coverage, stream)) is not None:
                canvas.draw(coverage, place, int(labels[chosen]), stream)
        return canvas.scene()

    @cached_property
    def _digits(self) -> tuple[np.ndarray, np.ndarray]:
        from csa_deploy.data.packages import load_digits

        return load_digits(train=self.train)

    @cached_property
    def _photographs(self) -> list[np.ndarray]:
        return [_photograph(name) for name in photographs(train=self.train)]

    def _background(self, stream: SplitMix, *, varied: bool) -> tuple[np.ndarray, bool]:
        """A crop of a photograph, varied or not; True: grey, as a fourth is."""
        crop = self._crop(stream)
        if varied:
            if stream.below(2):
                share = stream.between(32, 96)
                crop = (crop * share + self._crop(stream) * (128 - share)) >> 7
            crop = _varied(crop, stream)
        grey = stream.below(4) == 0
        return np.ascontiguousarray(np.repeat(_luma(crop)[..., None], 3, axis=2) if grey else crop), grey

    def _crop(self, stream: SplitMix) -> np.ndarray:
        """A part of a photograph at full, half or a third of its size, mirrored or not: int32 (SIDE, SIDE, 3)."""
        photograph = self._photographs[stream.below(len(self._photographs))]
        step = stream.between(1, min(3, min(photograph.shape[:2]) // SIDE))
        top, left = (stream.below(side - SIDE * step + 1) for side in photograph.shape[:2])
        crop = photograph[top : top + SIDE * step, left : left + SIDE * step].astype(np.int32)
        if step > 1:
            rows = np.add.reduce([crop[i::step] for i in range(step)])
            crop = (np.add.reduce([rows[:, i::step] for i in range(step)]) + step * step // 2) // (step * step)
        return crop[:, ::-1] if stream.below(2) else crop


class _Canvas:
    """A scene while it is drawn: int32 pixels, and for each pixel 1 + index of the uppermost digit (0: none)."""

    def __init__(self, pixels: np.ndarray, grey: bool) -> None:
        self.pixels, self.grey = pixels, grey
        self.owner = np.zeros(pixels.shape[:2], dtype=np.int32)
        self.layers: list[DrawnDigit] = []
        self.labels: list[int] = []
        self.areas: list[int] = []  # pixels of each digit
        self.visible: list[int] = []  # of them not hidden

    def place(self, coverage: np.ndarray, stream: SplitMix) -> tuple[int, int] | None:
        """A corner (x, y) from which the digit lies in the scene and hides no other one too much; None: not found."""
        (height, width), covered = coverage.shape, coverage >= INK
        share, whole = MOST_HIDDEN
        for _ in range(_PLACES):
            x, y = stream.below(SIDE - width + 1), stream.below(SIDE - height + 1)
            lost = self._hidden_by(x, y, covered)
            left = (visible - less for visible, less in zip(self.visible, lost, strict=True))
            if all((area - kept) * whole <= area * share for area, kept in zip(self.areas, left, strict=True)):
                return x, y
        return None

    def draw(self, coverage: np.ndarray, place: tuple[int, int], label: int, stream: SplitMix) -> None:
        """Put a digit on top."""
        covered = coverage >= INK
        lost = self._hidden_by(*place, covered)
        layer = DrawnDigit(*place, self._colour(coverage, place, stream), coverage)
        alpha = coverage.astype(np.int32)[..., None]
        self.pixels[layer.box] = (self.pixels[layer.box] * (255 - alpha) + layer.colour * alpha + 127) // 255
        self.layers.append(layer)
        self.labels.append(label)
        self.areas.append(int(covered.sum()))
        self.visible = [*(before - less for before, less in zip(self.visible, lost, strict=True)), self.areas[-1]]
        self.owner[layer.box][covered] = len(self.layers)

    def scene(self) -> Scene:
        """The scene as it stands."""
        boxes = []
        for index, layer in enumerate(self.layers):
            seen = self.owner[layer.box] == index + 1
            rows, columns = np.flatnonzero(seen.any(axis=1)) + layer.y, np.flatnonzero(seen.any(axis=0)) + layer.x
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return Scene(
            image=self.pixels.astype(np.uint8),
            mask=np.asarray([0, *(label + 1 for label in self.labels)], dtype=np.uint8)[self.owner],
            boxes=np.asarray(boxes, dtype=np.int64).reshape(-1, 4),
            labels=np.asarray(self.labels, dtype=np.int64),
            visible=np.asarray(self.visible, dtype=np.int64),
            occlusion=1 - np.asarray(self.visible) / np.asarray(self.areas),
            layers=tuple(self.layers),
        )

    def _hidden_by(self, x: int, y: int, covered: np.ndarray) -> list[int]:
        """How many pixels of each digit would be hidden."""
        below = self.owner[y : y + covered.shape[0], x : x + covered.shape[1]][covered]
        return np.bincount(below, minlength=len(self.layers) + 1)[1:].tolist()

    def _colour(self, coverage: np.ndarray, place: tuple[int, int], stream: SplitMix) -> np.ndarray:
        """A colour that stands out from the mean of what lies behind; black or white where none was found."""
        (height, width), (x, y) = coverage.shape, place
        behind = _luma(self.pixels[y : y + height, x : x + width])
        mean = int(behind.sum()) // behind.size
        for _ in range(_COLOURS):
            red, green, blue = [stream.below(256)] * 3 if self.grey else [stream.below(256) for _ in range(3)]
            if abs((77 * red + 150 * green + 29 * blue + 128 >> 8) - mean) >= CONTRAST:
                return np.asarray([red, green, blue], dtype=np.int32)
        return np.full(3, 255 if mean < 128 else 0, dtype=np.int32)


class SceneSamples(Endless):
    """Scenes as the samples of a data set; each is made when it is read.

    Args:
        task: what the targets are for.
        train: training scenes; else test scenes.
        epoch: the first has the data set's scenes, each further one the next ones.
        style: of the scenes.
    """

    def __init__(self, task: Task, *, train: bool, epoch: int = 0, style: Style = USUAL) -> None:
        self.task, self.train, self.epoch, self.style = task, train, epoch, style

    def of_epoch(self, epoch: int, *, crowded: bool) -> SceneSamples:
        """As many other scenes, varied."""
        return SceneSamples(self.task, train=self.train, epoch=epoch, style=CROWDED if crowded else VARIED)

    def __len__(self) -> int:
        return TRAIN_SCENES if self.train else TEST_SCENES

    def __getitem__(self, index: Any) -> Any:
        """The sample at an index."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part, number = "train" if self.train else "test", self.epoch * len(self) + index
        make = partial(made, number, train=self.train, style=self.style)
        return Sample(f"{part}-{number:05d}", lambda: make().target(self.task), lambda: make().image)


@lru_cache(maxsize=16)  # a sample's picture and target are asked for one after the other
def made(index: int, *, train: bool, style: Style = USUAL) -> Scene:
    """The scene of this index and seed 0; not to be changed."""
    return _part(train=train).scene(index, style=style)


@lru_cache
def _part(*, train: bool) -> Scenes:
    return Scenes(train=train)


def photographs(*, train: bool) -> tuple[str, ...]:
    """File names of the photographs of one part."""
    from csa_deploy.data.packages import photograph_files

    return tuple(path.name for path in photograph_files() if (path.name in TEST_PHOTOGRAPHS) != train)


def _varied(crop: np.ndarray, stream: SplitMix) -> np.ndarray:
    """A crop (SIDE, SIDE, 3), turned and with other colours."""
    first = stream.below(3)
    crop = np.rot90(crop, stream.below(4))[..., [first, (first + stream.between(1, 2)) % 3, stream.below(3)]]
    if stream.below(4) == 0:
        crop = 255 - crop
    gain = stream.between(64, 128)
    return (crop * gain >> 7) + stream.below(256 - (255 * gain >> 7))


def _shape(stream: SplitMix) -> DigitShape:
    return DigitShape(stream.between(-32, 32), stream.between(112, 152), stream.between(112, 144), stream.below(64))


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Luma of RGB (..., 3), 0 to 255."""
    return (pixels @ np.asarray((77, 150, 29), dtype=np.int32) + 128) >> 8


@lru_cache(maxsize=64)
def _photograph(name: str) -> np.ndarray:
    """uint8 (H, W, 3)."""
    from csa_deploy.data.images import decode
    from csa_deploy.data.packages import photograph_files

    path = next(path for path in photograph_files() if path.name == name)
    return np.asarray(decode(path, path).convert("RGB"))
