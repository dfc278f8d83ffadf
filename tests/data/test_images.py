"""Decoding and preprocessing of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_deploy.data.images import check_image, decode, to_array
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

IMAGENET = Preprocessing((224, 224))
PLAIN = Preprocessing((4, 6), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest", crop=1.0)
GREY = Preprocessing((4, 6), mode="L", mean=(0.0,), std=(1.0,), interpolation="nearest", crop=1.0)


def smooth(width: int, height: int) -> Image.Image:
    """A picture without sharp edges."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / 17 + i) * np.cos(y / 23 - i) for i in range(3)]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def test_normalisation_and_layout() -> None:
    image = Image.new("RGB", (6, 4), (255, 0, 51))
    array = to_array(image, Preprocessing((4, 6), crop=1.0))
    assert array.shape == (3, 4, 6) and array.dtype == np.float32 and array.flags.c_contiguous
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(array[:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(640, 512), (512, 768), (300, 300)])
def test_equals_resizing_then_cropping(width: int, height: int) -> None:
    """The one-step resize agrees with the usual two steps where these need not round the resized size."""
    image = smooth(width, height)
    scale = 256 / min(width, height)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    cropped = np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    mean, std = np.float32(IMAGENET.mean), np.float32(IMAGENET.std)
    expected = ((cropped - mean) / std).transpose(2, 0, 1)
    one_level = 1 / 255 / 0.224
    assert np.abs(to_array(image, IMAGENET) - expected).max() < 1.01 * one_level


def test_rectangular_input_keeps_the_aspect_and_the_centre() -> None:
    """A wide picture for a wide input: the circle in its middle stays a circle in the middle."""
    y, x = np.mgrid[0:400, 0:1000]
    circle = ((x - 499.5) ** 2 + (y - 199.5) ** 2 < 80**2).astype(np.uint8) * 255
    array = to_array(Image.fromarray(circle), Preprocessing((256, 448), "L", (0.0,), (1.0,), "bilinear", 1.0))[0] > 0.5
    rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
    assert len(rows) == pytest.approx(len(columns), abs=1)
    assert rows.mean() == pytest.approx(127.5, abs=0.6) and columns.mean() == pytest.approx(223.5, abs=0.6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_degenerate_images_work(size: tuple[int, int]) -> None:
    array = to_array(Image.new("RGB", size, (255, 255, 255)), PLAIN)
    np.testing.assert_array_equal(array, np.ones((3, 4, 6), np.float32))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 10), (77, 77, 77)),
        ("P", 0, (0, 0, 0)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("I;16", 0x4DFF, (0x4D, 0x4D, 0x4D)),
    ],
)
def test_pixel_formats(tmp_path: Path, mode: str, colour: object, expected: tuple[int, ...]) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (6, 4), colour).save(path)  # type: ignore[arg-type]
    array = to_array(decode(path, path), PLAIN)
    np.testing.assert_allclose(array[:, 2, 3] * 255, expected, atol=1e-3)


def test_cmyk_and_grey_networks(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(path, quality=100)
    red = to_array(decode(path, path), PLAIN)[:, 0, 0]
    assert red[0] > 0.9 and red[1] < 0.1 and red[2] < 0.1
    assert to_array(decode(path, path), GREY).shape == (1, 4, 6)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert decode(path, path).size == (20, 40)


def test_a_text_file_named_jpg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    for call in (lambda: decode(path, path), lambda: check_image(path)):
        with pytest.raises(UsageError, match=r"notes\.jpg: cannot be read as an image: its content is no image"):
            call()


def test_a_truncated_photograph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    smooth(400, 300).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UsageError, match=r"half\.jpg: cannot be read as an image: .*truncated"):
        decode(path, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such image file"):
        check_image(tmp_path / "none.png")


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.ones((4, 6), np.float32)).save(path)
    with pytest.raises(UsageError, match="value range is not defined"):
        decode(path, path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (400, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(UsageError, match=r"bomb\.png: cannot be read as an image: .*exceeds limit"):
        check_image(path)
