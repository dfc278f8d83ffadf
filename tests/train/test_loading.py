"""Which images a training sees, when, and from where."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csa_deploy.data.dataset import open_dataset, open_split
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.train.augment import Augment
from csa_deploy.train.loading import (
    EvaluationImages,
    TrainImages,
    UpdateOrder,
    collate,
    evaluation_loader,
    train_loader,
)
from csa_deploy.train.recipe import Recipe

from .conftest import CLASSES, HELD_OUT, PREPROCESSING, TRAIN


def order(pictures: object, rank: int = 0, world: int = 1, accumulate: int = 1, first: int = 0) -> UpdateOrder:
    result = UpdateOrder(pictures, 8 // world // accumulate, accumulate, rank, world, seed=3)  # type: ignore[arg-type]
    result.first_update, result.last_update = first, 12
    return result


def write_shards(images: Path, folder: Path) -> None:
    """The images of each part in tar files of ten."""
    for part in ("train", "val"):
        (folder / part).mkdir(parents=True)
        files = sorted((images / part).rglob("*.png"), key=lambda p: p.name)
        for start in range(0, len(files), 10):
            with tarfile.open(folder / part / f"{start:04d}.tar", "w") as archive:
                for path in files[start : start + 10]:
                    entries = {"png": path.read_bytes(), "cls": str(CLASSES.index(path.parent.name)).encode()}
                    for suffix, data in entries.items():
                        info = tarfile.TarInfo(f"{path.stem}.{suffix}")
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))


def test_an_epoch_has_every_image_once_and_each_epoch_another_order(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    steps = list(order(pictures))
    epochs = [[i for step in steps[n : n + 6] for _, i in step] for n in (0, 6)]
    assert all(len(set(epoch)) == TRAIN // 8 * 8 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert {epoch for step in steps[6:] for epoch, _ in step} == {1}


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_ranks_and_steps_share_the_global_batches_of_one_process(images: Path, world: int, accumulate: int) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    ranks = [list(order(pictures, rank, world, accumulate)) for rank in range(world)]
    for update, whole in enumerate(order(pictures)):
        steps = range(update * accumulate, (update + 1) * accumulate)
        parts = [index for step in steps for rank in ranks for index in rank[step]]
        assert parts == whole


def test_a_resumed_order_is_the_rest_of_the_whole(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    assert list(order(pictures, first=7)) == list(order(pictures))[7:]


@pytest.mark.parametrize("world", [1, 3, 4])
def test_evaluation_sees_each_image_once(images: Path, world: int) -> None:
    held_out = open_split(str(images), PREPROCESSING).held_out
    assert held_out is not None
    loaders = [evaluation_loader(EvaluationImages(held_out, PREPROCESSING), 4, rank, world, 0) for rank in range(world)]
    names = [name for loader in loaders for batch in loader for name in batch.names]
    assert len(names) == len(set(names)) == HELD_OUT


def test_evaluation_preprocesses_as_deployment(images: Path) -> None:
    held_out = open_split(str(images), PREPROCESSING).held_out
    assert held_out is not None
    batch = next(iter(evaluation_loader(EvaluationImages(held_out, PREPROCESSING), 20, 0, 1, 0)))
    dataset = open_dataset(images / "val", PREPROCESSING)
    deployed = next(dataset.batches(20))
    assert np.array_equal(batch.images.numpy(), deployed.inputs["image"])
    assert batch.labels.tolist() == list(deployed.labels)  # type: ignore[arg-type]


def test_training_without_augmentation_sees_what_deployment_sees(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    plain = Recipe(epochs=1, global_batch=8, lr=1.0)
    batch = collate([TrainImages(pictures, PREPROCESSING, None, 0)[(0, i)] for i in range(TRAIN)])
    augmented, targets = Augment(plain, PREPROCESSING, 2)(batch.images, batch.labels)
    dataset = open_dataset(images / "train", PREPROCESSING)
    torch.testing.assert_close(augmented, torch.from_numpy(next(dataset.batches(TRAIN)).inputs["image"]))
    assert targets.argmax(dim=1).tolist() == batch.labels.tolist()


def test_shards_hold_the_same_images_as_folders(images: Path, tmp_path: Path) -> None:
    write_shards(images, tmp_path)
    (tmp_path / "class_map.txt").write_text("bars straight lines\nblob\n")
    shards, folders = (open_split(str(root), PREPROCESSING).train for root in (tmp_path, images))
    assert shards.shards is not None and shards.shards.tolist() == sorted(i // 10 for i in range(TRAIN))
    by_name = {folders.samples[i].id.rpartition("/")[2]: i for i in range(TRAIN)}
    for i in range(TRAIN):
        other = by_name[shards.samples[i].id.rpartition(":")[2]]
        assert shards.labels[i] == folders.labels[other]
        assert shards.samples[i].image().tobytes() == folders.samples[other].image().tobytes()
    assert sorted(i for step in list(order(shards))[:6] for _, i in step) != list(range(48))
    assert len({i for step in list(order(shards))[:6] for _, i in step}) == 48


@pytest.mark.parametrize("prefix", ["", "./", "imagenet.v1/"])
def test_shards_of_the_webdataset_library_are_read(prefix: str, images: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "train").mkdir()
    files = sorted((images / "train").rglob("*.png"))
    with webdataset.TarWriter(str(tmp_path / "train" / "000.tar"), encoder=False) as writer:
        for path in files:
            label = str(CLASSES.index(path.parent.name)).encode()
            writer.write({"__key__": prefix + path.stem, "PNG": path.read_bytes(), "cls": label, "json": b"{}"})
    (tmp_path / "class_map.txt").write_text("bars\nblob\n")
    shards = open_split(str(tmp_path), PREPROCESSING).train
    for i, path in enumerate(files):
        assert shards.samples[i].id == f"000.tar:{prefix}{path.stem}.PNG"
        assert shards.labels[i] == CLASSES.index(path.parent.name)
        assert shards.samples[i].image().tobytes() == Image.open(path).tobytes()


def test_a_damaged_shard_is_named(images: Path, tmp_path: Path) -> None:
    write_shards(images, tmp_path)
    (tmp_path / "train" / "0000.tar").write_bytes(b"x" * 1024)
    with pytest.raises(UsageError, match=r"0000\.tar: not a readable shard"):
        open_split(str(tmp_path), PREPROCESSING)


def test_a_class_map_decides_the_labels(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("blob\nbars\n")
    mapped, sorted_ = (open_split(str(images), PREPROCESSING, chosen).train for chosen in (path, None))
    assert mapped.samples[0].id.startswith("blob")
    assert sorted_.samples[0].id.startswith("bars")
    path.write_text("blob\n")
    with pytest.raises(UsageError, match="bars: none of the 1 classes"):
        open_split(str(images), PREPROCESSING, path)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="animals"):
        open_split(str(tmp_path), PREPROCESSING)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match="no images in this folder"):
        open_split(str(tmp_path), PREPROCESSING)


def test_crops_depend_on_the_seed_the_epoch_and_the_image_alone(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    first, again, other = (TrainImages(pictures, PREPROCESSING, (0.2, 0.8), seed) for seed in (1, 1, 2))
    assert np.array_equal(first[(0, 5)][0], again[(0, 5)][0])
    assert not np.array_equal(first[(0, 5)][0], other[(0, 5)][0])
    assert not np.array_equal(first[(0, 5)][0], first[(1, 5)][0])


def test_workers_change_nothing(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    dataset = TrainImages(pictures, PREPROCESSING, (0.2, 0.8), 0)
    for a, b in zip(train_loader(dataset, order(pictures), 0), train_loader(dataset, order(pictures), 1), strict=True):
        assert torch.equal(a.images, b.images)
        assert a.names == b.names


def test_a_rectangular_network_gets_undistorted_images(images: Path) -> None:
    pictures = open_split(str(images), PREPROCESSING).train
    wide = Preprocessing((6, 12), mode="L", mean=(0.5,), std=(0.25,))
    assert TrainImages(pictures, wide, None, 0)[(0, 0)][0].shape == (1, 6, 12)
    assert TrainImages(pictures, wide, None, 0)._box(12, 12, (0, 0, 0)) == (0.75, 3.375, 11.25, 8.625)
    whole = replace(wide, crop=1.0)
    assert TrainImages(pictures, whole, None, 0)._box(12, 12, (0, 0, 0)) == (0, 3, 12, 9)
