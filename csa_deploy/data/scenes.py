"""Scenes: real handwritten digits on real photographs, made on the fly, with exact ground truth.

A scene follows from its part (train or test), seed and index alone. Everything is integer arithmetic on an own random
stream, so it is the same everywhere, whatever the versions of NumPy and Pillow. Only two things come from outside: the
decoder of the photographs that are JPEG files (libjpeg-turbo in Pillow's wheels, whose results do not change), and
cosine and sine of whole degrees, rounded to 16 bits.

Training scenes hold digits of the training split on photographs of their own, test scenes the held-out digits on other
photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

SIDE = 128
"""Height and width of a scene in pixels."""
DIGITS = (1, 6)
"""Least and most digits of a scene; fewer than drawn where no place was found."""
SCALES = (12, 48)
"""Least and most length in pixels of a digit's longer side before it is turned."""
DEGREES = 30
"""Digits are turned by at most so many degrees, so that 6 and 9 stay what they are."""
MOST_HIDDEN = (1, 3)
"""At most this share (a fraction) of a digit's pixels is hidden by later ones."""
_INK = 128  # a pixel belongs to a digit from this coverage (of 255) on
_CONTRAST = 80  # least difference in luma between a digit and the mean behind it
_PLACES, _COLOURS = 10, 16  # attempts
_WORD = (1 << 64) - 1

# scikit-image's and foolbox's; the two views of one motorcycle stay together.
TEST_PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coins.png", "gravel.png", "motorcycle_left.png", "motorcycle_right.png"),
    *("rocket.jpg", "imagenet_12_741.jpg", "imagenet_13_471.jpg", "imagenet_14_129.jpg", "imagenet_15_99.jpg"),
    *("imagenet_16_251.jpg", "imagenet_17_22.jpg", "imagenet_18_317.jpg", "imagenet_19_305.jpg"),
)


@dataclass(frozen=True)
class Layer:
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
        occlusion: float64 (n,): share of the digit's pixels that later digits hide.
        layers: what was drawn.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    occlusion: np.ndarray
    layers: tuple[Layer, ...]


class Stream:
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

    def scene(self, index: int, seed: int = 0) -> Scene:
        """The scene of this index; there is no end of them.

        Raises:
            EnvironmentLacksError: a package that holds the images is not installed.
        """
        stream = Stream(seed, index, int(self.train))
        image = self._background(stream)
        grey = not (image[..., 0] != image[..., 1]).any() and not (image[..., 0] != image[..., 2]).any()
        pixels, labels = self._digits
        owner = np.zeros(image.shape[:2], dtype=np.int64)  # 1 + index of the uppermost digit
        layers: list[Layer] = []
        areas: list[int] = []
        drawn: list[int] = []
        for _ in range(stream.between(*DIGITS)):
            chosen = stream.below(len(labels))
            coverage = drawn_digit(pixels[chosen], stream.between(*SCALES), stream.between(-DEGREES, DEGREES))
            place = _place(owner, coverage >= _INK, areas, stream)
            if place is None:
                continue
            layer = _coloured(image, coverage, place, grey, stream)
            _paint(image, layer)
            layers.append(layer)
            areas.append(int((coverage >= _INK).sum()))
            drawn.append(int(labels[chosen]))
            owner[layer.box][coverage >= _INK] = len(layers)
        return _scene(image, owner, drawn, areas, tuple(layers))

    @cached_property
    def _digits(self) -> tuple[np.ndarray, np.ndarray]:
        from csa_deploy.data.named import load_digits

        return load_digits(train=self.train)

    @cached_property
    def _photographs(self) -> list[np.ndarray]:
        return [_photograph(name) for name in photographs(train=self.train)]

    def _background(self, stream: Stream) -> np.ndarray:
        """A crop of a photograph at full, half or a third of its size, mirrored or not, one of four in grey."""
        photograph = self._photographs[stream.below(len(self._photographs))]
        step = stream.between(1, min(3, min(photograph.shape[:2]) // SIDE))
        top, left = (stream.below(side - SIDE * step + 1) for side in photograph.shape[:2])
        crop = photograph[top : top + SIDE * step, left : left + SIDE * step].astype(np.int64)
        if step > 1:
            sums = crop.reshape(SIDE, step, SIDE, step, 3).sum(axis=(1, 3))
            crop = (sums + step * step // 2) // (step * step)
        if stream.below(2):
            crop = crop[:, ::-1]
        if stream.below(4) == 0:
            crop = np.repeat(_luma(crop)[..., None], 3, axis=2)
        return np.ascontiguousarray(crop)


def photographs(*, train: bool) -> tuple[str, ...]:
    """File names of the photographs of one part."""
    from csa_deploy.data.named import photograph_files

    return tuple(path.name for path in photograph_files() if (path.name in TEST_PHOTOGRAPHS) != train)


def drawn_digit(pixels: np.ndarray, length: int, degrees: int) -> np.ndarray:
    """Coverage uint8 (h, w) of a digit, tight around its pixels of at least half coverage and one pixel more.

    Four points of each pixel are mapped back to the digit's raster and interpolated bilinearly, in fixed point.

    Args:
        pixels: uint8 (28, 28), ink.
        length: of the longer side of the ink's box, in pixels of the scene, before the digit is turned.
        degrees: whole ones, clockwise on the screen.
    """
    rows, columns = (np.flatnonzero((pixels >= _INK).any(axis=axis)) for axis in (1, 0))
    sides = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    longer = max(sides)
    cosine, sine = (round(f(math.radians(degrees)) * 65536) for f in (math.cos, math.sin))
    radius = length // 2 + length // 4 + 2  # half of the diagonal of a square is 0.71 of its side
    # Places of the sample points around the centre, in quarters of a pixel: -3, -1, 1, 3, ...
    quarters = 2 * np.arange(-2 * radius, 2 * radius, dtype=np.int64) + 1
    y, x = quarters[:, None], quarters[None, :]
    # In the raster, 16 bits behind the point; its centre is the box's, half a pixel from the pixels' corners.
    middle_y, middle_x = (int(edge[0] + edge[-1]) << 15 for edge in (rows, columns))
    v = middle_y + (cosine * y - sine * x) * longer // (4 * length)
    u = middle_x + (cosine * x + sine * y) * longer // (4 * length)
    ink = _bilinear(np.pad(pixels.astype(np.int64), 1), v + 65536, u + 65536)
    coverage = (ink.reshape(2 * radius, 2, 2 * radius, 2).sum(axis=(1, 3)) + 2) >> 2
    rows, columns = (np.flatnonzero((coverage >= _INK).any(axis=axis)) for axis in (1, 0))
    tight = coverage[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    return tight.astype(np.uint8)


def _bilinear(image: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Values at (v, u), 16 bits behind the point; outside lies the edge, which is 0 here."""
    height, width = image.shape
    v, u = np.clip(v, 0, (height - 1) << 16), np.clip(u, 0, (width - 1) << 16)
    row, column = np.minimum(v >> 16, height - 2), np.minimum(u >> 16, width - 2)
    fy, fx = (v - (row << 16)) >> 8, (u - (column << 16)) >> 8
    first = row * width + column
    flat = image.ravel()
    upper = flat[first] * (256 - fx) + flat[first + 1] * fx
    lower = flat[first + width] * (256 - fx) + flat[first + width + 1] * fx
    return (upper * (256 - fy) + lower * fy + 32768) >> 16


def _place(owner: np.ndarray, covered: np.ndarray, areas: list[int], stream: Stream) -> tuple[int, int] | None:
    """A corner (x, y) from which the digit lies in the scene and hides no other one too much; None: not found."""
    height, width = covered.shape
    share, whole = MOST_HIDDEN
    for _ in range(_PLACES):
        x, y = stream.below(owner.shape[1] - width + 1), stream.below(owner.shape[0] - height + 1)
        after = owner.copy()
        after[y : y + height, x : x + width][covered] = 0
        visible = np.bincount(after.ravel(), minlength=len(areas) + 1)[1:]
        if all((area - int(left)) * whole <= area * share for area, left in zip(areas, visible, strict=True)):
            return x, y
    return None


def _coloured(image: np.ndarray, coverage: np.ndarray, place: tuple[int, int], grey: bool, stream: Stream) -> Layer:
    """The layer in a colour that stands out from the mean of what lies behind it."""
    height, width = coverage.shape
    x, y = place
    behind = _luma(image[y : y + height, x : x + width])
    mean = int(behind.sum()) // behind.size
    colour = np.full(3, 255 if mean < 128 else 0, dtype=np.int64)
    for _ in range(_COLOURS):
        levels = [stream.below(256)] * 3 if grey else [stream.below(256) for _ in range(3)]
        drawn = np.asarray(levels, dtype=np.int64)
        if abs(int(_luma(drawn)) - mean) >= _CONTRAST:
            colour = drawn
            break
    return Layer(x, y, colour, coverage)


def _paint(image: np.ndarray, layer: Layer) -> None:
    alpha = layer.coverage.astype(np.int64)[..., None]
    image[layer.box] = (image[layer.box] * (255 - alpha) + layer.colour * alpha + 127) // 255


def _scene(
    image: np.ndarray, owner: np.ndarray, drawn: list[int], areas: list[int], layers: tuple[Layer, ...]
) -> Scene:
    boxes, occlusion = [], []
    for index, area in enumerate(areas):
        visible = owner == index + 1
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        occlusion.append((area - int(visible.sum())) / area)
    labels = np.asarray(drawn, dtype=np.int64)
    mask = np.concatenate([[0], labels + 1])[owner].astype(np.uint8)
    return Scene(
        image.astype(np.uint8), mask, np.asarray(boxes, dtype=np.int64), labels, np.asarray(occlusion), layers
    )


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Luma of RGB (..., 3), 0 to 255."""
    return (pixels @ np.asarray((77, 150, 29), dtype=np.int64) + 128) >> 8


@lru_cache(maxsize=64)
def _photograph(name: str) -> np.ndarray:
    """uint8 (H, W, 3)."""
    from csa_deploy.data.images import decode
    from csa_deploy.data.named import photograph_files

    path = next(path for path in photograph_files() if path.name == name)
    return np.asarray(decode(path, path).convert("RGB"))
