"""Decoding of image files and the preprocessing that a network declares."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from csa_deploy.data.geometry import crop_box, geometry_of, resized_size
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_BAD_FILE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)


def check_image(source: Path | BinaryIO, name: Path | str | None = None) -> tuple[int, int]:
    """(height, width) of an image, upright, from the header of its file.

    Raises:
        UsageError: with its name (None: its path) when it is no image.
    """
    with open_image(source, name or str(source)) as image:
        exif = Image.Image.getexif(image)  # that of PNG files would decode the image
        upright = exif.get(ExifTags.Base.Orientation, 1) < 5
        return (image.height, image.width) if upright else (image.width, image.height)


def decode(source: Path | BinaryIO, name: Path | str) -> Image.Image:
    """Decode an image to mode RGB or L, upright.

    EXIF orientation is applied. 16-bit grey keeps its upper 8 bits. Transparency is dropped and CMYK converted, as
    the loaders of torchvision and timm do. Of an animation the first frame is taken.

    Raises:
        UsageError: not an image, truncated, too large to be honest, or floating-point (its range is not defined).
    """
    image = open_image(source, name)
    try:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            return _from_16_bit(image, name)
        if image.mode == "F":
            raise UsageError(f"{name}: floating-point image, its value range is not defined", fix="convert it to 8 bit")
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        return image if image.mode == mode else image.convert(mode)
    except _BAD_FILE as error:
        raise _unreadable(name, error) from error


def to_array(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """The network's input for an RGB or L image: float32 of shape (C, H, W), or (H, W, C) in the layout NHWC.

    Raises:
        UsageError: the image does not fit a network that pads only.
    """
    height, width = preprocessing.size
    if image.mode != preprocessing.decoded:
        image = image.convert(preprocessing.decoded)
    image = fitted(image, preprocessing)
    pixels = np.asarray(image).reshape(height, width, preprocessing.channels)
    if preprocessing.mode == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = (np.asarray(v, dtype=np.float32) for v in (preprocessing.mean, preprocessing.std))
    # A pixel has 256 values, so each is normalised once per channel and looked up.
    pixel = np.arange(256, dtype=np.float32)
    scaled = pixel / np.float32(255) if preprocessing.scale is None else pixel * np.float32(preprocessing.scale)
    columns = np.broadcast_to((scaled[:, None] - mean) / std, (256, preprocessing.channels)).T
    axis = 0 if preprocessing.layout == "NCHW" else -1
    return np.stack([column.take(pixels[:, :, channel]) for channel, column in enumerate(columns)], axis=axis)


def fitted(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The image in the network's size.

    Resize and centre crop are one step: Pillow resamples the part of the image that the crop keeps, which gives the
    same values as resizing the whole image first, needs no rounding of the resized size, and takes no memory for
    what the crop drops.
    """
    (height, width), resample = preprocessing.size, FILTERS[preprocessing.interpolation]
    own = image.height, image.width
    if preprocessing.fit == "crop":
        top, left, bottom, right = crop_box(preprocessing, own)
        return image.resize((width, height), resample, box=(left, top, right, bottom))
    top, left = (int(start) for start in geometry_of(preprocessing, own).offset)
    resized = resized_size(preprocessing, own)
    if resized != own:
        image = image.resize(resized[::-1], resample)
    fill = preprocessing.fill if len(preprocessing.fill) == preprocessing.channels else preprocessing.fill * 3
    canvas = Image.new(image.mode, (width, height), fill[::-1] if preprocessing.mode == "BGR" else fill)
    canvas.paste(image, (left, top))
    return canvas


def open_image(source: Path | BinaryIO, name: Path | str) -> Image.Image:
    """An image of which the header is read; raises UsageError with its name when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(source)
    except FileNotFoundError as error:
        raise UsageError(f"{name}: no such image file") from error
    except _BAD_FILE as error:
        raise _unreadable(name, error) from error


def _from_16_bit(image: Image.Image, name: Path | str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise UsageError(f"{name}: pixel values {values.min()}..{values.max()} exceed 16 bits", fix="convert to 8 bit")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _unreadable(name: Path | str, error: Exception) -> UsageError:
    reason = str(error).split("\n")[0]
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "its content is no image format that Pillow knows"
    return UsageError(f"{name}: cannot be read as an image: {reason}", fix="replace or remove the file")
