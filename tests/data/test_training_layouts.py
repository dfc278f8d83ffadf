"""What a training takes as data, an evaluation takes too, with the same labels."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

PLAIN = Preprocessing((8, 8), crop=1.0)


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (shade, shade, shade)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture()
def split(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("val", 2)):
        for shade, name in ((10, "cat"), (200, "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / part / name / f"{i}.png").write_bytes(png(shade + i))
    return tmp_path


def test_of_a_folder_for_training_the_held_out_part_is_taken(split: Path) -> None:
    data = open_dataset(split, PLAIN)
    assert data.classes == ("cat", "dog") and len(data) == 4
    assert data.labels is not None and data.labels.tolist() == [0, 0, 1, 1]
    asked = open_dataset(split, Preprocessing((8, 8), classes=("train", "val")))
    assert len(asked) == 12, "where these are the network's classes, they are classes"


@pytest.mark.parametrize("place", ["class_map.txt", "val/class_map.txt"])
def test_the_class_map_decides_the_labels(split: Path, place: str) -> None:
    (split / place).write_text("dog four legs\ncat as well\n")
    for folder in (split, split / "val"):
        labels = open_dataset(folder, PLAIN).labels
        assert labels is not None and labels.tolist() == [1, 1, 0, 0]
    named = Preprocessing((8, 8), classes=("cat", "dog"))
    labels = open_dataset(split, named).labels
    assert labels is not None and labels.tolist() == [1, 1, 0, 0], "as in training"


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_shards_are_read_like_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard(tmp_path / "val/0.tar", {"a.png": png(7), "a.cls": b"1", "b.png": png(8), "alone.png": png(9), "b.cls": b"0"})
    (tmp_path / "train").mkdir()
    for folder in (tmp_path, tmp_path / "val"):
        data = open_dataset(folder, PLAIN)
        assert data.labels is not None and data.labels.tolist() == [1, 0]
        (batch,) = data.batches(4)
        assert batch.ids == ("0.tar:a.png", "0.tar:b.png")
        picture = data.image("0.tar:a.png")
        assert picture is not None and picture.getpixel((0, 0)) == (7, 7, 7)
    assert "1 images without a .cls are left out, first alone.png" in caplog.text
    before = open_dataset(tmp_path, PLAIN).fingerprint()
    shard(tmp_path / "val/0.tar", {"a.png": png(6), "a.cls": b"1", "b.png": png(8), "b.cls": b"0"})
    assert open_dataset(tmp_path, PLAIN).fingerprint() != before


def test_bad_shards_are_one_line(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"a.png": png(7), "a.cls": b"-1"})
    with pytest.raises(UsageError, match=r"a\.cls is -1"):
        open_dataset(tmp_path, PLAIN)
    shard(tmp_path / "0.tar", {"a.png": png(7)})
    with pytest.raises(UsageError, match="no labelled images in its shards"):
        open_dataset(tmp_path, PLAIN)
    (tmp_path / "0.tar").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="not a readable shard"):
        open_dataset(tmp_path, PLAIN)
