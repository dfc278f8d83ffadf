"""What a training takes as data, an evaluation takes too, with the same labels."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.dataset import open_dataset, open_split
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


def same_as_training(root: Path, preprocessing: Preprocessing = PLAIN) -> list[int]:
    """The labels of an evaluation of the folder and of its ``val``, which are those of the training."""
    held_out = open_split(str(root), preprocessing).held_out
    assert held_out is not None
    assert held_out.labels is not None
    wanted = dict(zip(held_out.identities(), held_out.labels.tolist(), strict=True))
    for folder in (root, root / "val"):
        data = open_dataset(folder, preprocessing)
        assert data.labels is not None and isinstance(data, ImageDataset)
        assert list(zip(data.identities(), data.labels.tolist(), strict=True)) == list(wanted.items()), "also in order"
    return sorted(wanted.values())


def test_labels_are_those_of_the_training(split: Path) -> None:
    assert same_as_training(split) == [0, 0, 1, 1]
    shutil.rmtree(split / "val/cat")
    assert same_as_training(split) == [1, 1], "a class that is not in val keeps its number"
    (split / "class_map.txt").write_text("dog four legs\ncat as well\n")
    assert same_as_training(split) == [0, 0]
    assert same_as_training(split, Preprocessing((8, 8), classes=("cat", "dog"))) == [0, 0], "the map comes first"
    (split / "val/class_map.txt").write_text("cat\ndog\n")
    assert same_as_training(split) == [0, 0], "only that of the whole folder counts"


def test_synsets_of_an_own_training_are_numbered_like_it(split: Path) -> None:
    for part in ("train", "val"):
        for old, new in (("cat", "n00000001"), ("dog", "n00000002")):
            (split / part / old).rename(split / part / new)
    with pytest.raises(UsageError, match="2 synsets of 1000"):
        open_dataset(split, PLAIN)
    (split / "class_map.txt").write_text("n00000002\nn00000001\n")
    assert same_as_training(split) == [0, 0, 1, 1]
    (split / "class_map.txt").unlink()
    assert same_as_training(split, Preprocessing((8, 8), classes=("n00000001", "n00000002"))) == [0, 0, 1, 1]


def test_a_class_map_elsewhere_means_nothing(split: Path) -> None:
    (split / "train" / "class_map.txt").write_text("dog\ncat\n")
    (split / "other").mkdir()
    shutil.copytree(split / "val", split / "other/pets")
    (split / "other/class_map.txt").write_text("dog\ncat\n")
    labels = open_dataset(split / "other/pets", PLAIN).labels
    assert labels is not None and labels.tolist() == [0, 0, 1, 1]


def test_an_archive_beside_images_is_no_shard(split: Path) -> None:
    (split / "val/images.tar").write_bytes(b"what they came from")
    assert len(open_dataset(split, PLAIN)) == 4


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
        part = open_dataset(folder, PLAIN, lenient=True) if folder.name == "val" else data
        assert part.labels is not None and part.labels.tolist() == [1, 0] and part.identities() == list(batch.ids)
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
    shard(tmp_path / "0.tar", {"a.png": b"no image", "a.cls": b"1"})
    with pytest.raises(UsageError, match=rf"{tmp_path / '0.tar'}:a\.png: cannot be read as an image"):
        open_dataset(tmp_path, PLAIN)
    (tmp_path / "0.tar").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="not a readable shard"):
        open_dataset(tmp_path, PLAIN)


def test_calibration_takes_shards_and_those_of_a_training(tmp_path: Path) -> None:
    shard(tmp_path / "train/0.tar", {"a.png": png(7), "a.cls": b"1", "b.png": b"damaged", "b.cls": b"0"})
    shard(
        tmp_path / "train/1.tar",
        {f"{i}{kind}": data for i in range(20) for kind, data in ((".png", png(i)), (".cls", b"0"))},
    )
    for folder in (tmp_path, tmp_path / "train"):
        data = open_dataset(folder, PLAIN, lenient=True)
        ids = [identity for batch in data.batches(4) for identity in batch.ids]
        assert len(data) == 22 and len(ids) == 21 and list(data.skipped) == ["0.tar:b.png"]
        assert data.hashes().keys() == {*ids, "0.tar:b.png"}
