"""Draws a handwritten digit at any size, turned and varied, in fixed point: the same everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

INK = 128
"""A pixel belongs to a digit from this coverage (of 255) on."""


@dataclass(frozen=True)
class DigitShape:
    """How a digit is varied.

    Attributes:
        slant: horizontal shift per pixel of height, in 128ths.
        narrow, low: its width and its height are divided by so many 128ths.
        stroke: added to the ink where there is some.
    """

    slant: int = 0
    narrow: int = 128
    low: int = 128
    stroke: int = 0


def drawn_digit(pixels: np.ndarray, length: int, degrees: int, shape: DigitShape = DigitShape()) -> np.ndarray:
    """Coverage uint8 (h, w) of a digit, tight around its pixels of at least half coverage and one pixel more.

    It is (0, 0) where the strokes are so thin at this length that no pixel is covered by half.

    Four points of each pixel are mapped back to the digit's raster and interpolated bilinearly, in fixed point.

    Args:
        pixels: uint8 (28, 28), ink.
        length: of the longer side of the ink's box, in pixels of the scene, before the digit is turned.
        degrees: whole ones, clockwise on the screen.
        shape: its variation.
    """
    if shape.stroke:
        pixels = np.minimum(pixels.astype(np.int32) + np.where(pixels, shape.stroke, 0), 255)
    rows, columns = (np.flatnonzero((pixels >= INK).any(axis=axis)) for axis in (1, 0))
    longer = max(int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1))
    cosine, sine = (round(f(math.radians(degrees)) * 65536) for f in (math.cos, math.sin))
    # Places of the sample points around the centre, in quarters of a pixel: -3, -1, 1, 3, ...
    reach = _reach(int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1, degrees, shape)
    y, x = (2 * np.arange(-2 * r, 2 * r, dtype=np.int32) + 1 for r in (int(r * length / longer) + 3 for r in reach))
    y, x = y[:, None], x[None, :]
    # In the raster with an edge of one pixel around it, in 65536ths of a pixel.
    middle_y, middle_x = ((int(edge[0] + edge[-1]) << 15) + 65536 for edge in (rows, columns))
    down = (cosine * shape.low >> 7) * y - (sine * shape.low >> 7) * x
    right = ((cosine * shape.narrow - sine * shape.slant) >> 7) * x + (
        (sine * shape.narrow + cosine * shape.slant) >> 7
    ) * y
    v, u = middle_y + down * longer // (4 * length), middle_x + right * longer // (4 * length)
    ink = _bilinear(np.pad(pixels, 1).astype(np.int32), v, u)
    coverage = (ink[::2, ::2] + ink[::2, 1::2] + ink[1::2, ::2] + ink[1::2, 1::2] + 2) >> 2
    rows, columns = (np.flatnonzero((coverage >= INK).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((0, 0), dtype=np.uint8)
    tight = coverage[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    return tight.astype(np.uint8)


def _reach(height: int, width: int, degrees: int, shape: DigitShape) -> tuple[float, float]:
    """How far a box of the raster and one pixel around it reaches from its centre, down and across, once turned."""
    upright = (height / 2 + 1) * 128 / shape.low
    across = ((width / 2 + 1) * 128 + upright * abs(shape.slant)) / shape.narrow
    cosine, sine = math.cos(math.radians(degrees)), abs(math.sin(math.radians(degrees)))
    return cosine * upright + sine * across, cosine * across + sine * upright


def _bilinear(image: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Values at (v, u), in 65536ths of a pixel; outside lie the values of the edge, which are 0 here."""
    height, width = image.shape
    v, u = np.clip(v, 0, (height - 1) << 16), np.clip(u, 0, (width - 1) << 16)
    row, column = np.minimum(v >> 16, height - 2), np.minimum(u >> 16, width - 2)
    fy, fx = (v - (row << 16)) >> 8, (u - (column << 16)) >> 8
    first = row * width + column
    flat = image.ravel()
    upper = flat[first] * (256 - fx) + flat[first + 1] * fx
    lower = flat[first + width] * (256 - fx) + flat[first + width + 1] * fx
    return (upper * (256 - fy) + lower * fy + 32768) >> 16
