"""The way from what a user types to a data set."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.data.arrays import ARRAYS, GIVEN_FILE, ArrayDataset
from csa_deploy.data.base import Dataset, ImageDataset, choose
from csa_deploy.data.coco import open_coco
from csa_deploy.data.folder import CLASS_MAP, open_images, split_of, training_classes
from csa_deploy.data.imagenet import is_imagenet, open_imagenet
from csa_deploy.data.layouts import layout_of, parts_of
from csa_deploy.data.named import NAMED
from csa_deploy.data.sequences import LIST, open_sequences
from csa_deploy.data.table import open_table
from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean, unknown
from csa_deploy.network import Preprocessing, Task

logger = logging.getLogger(__name__)


def open_dataset(
    spec: str | Path,
    preprocessing: Preprocessing | None,
    *,
    limit: int | None = None,
    seed: int | None = None,
    lenient: bool = False,
    task: Task | None = None,
    sequences: bool = False,
) -> Dataset:
    """Open a data set: a name (``digits``, ``photos``, ...), a folder of images or tar shards, a ``.csv`` table, or
    arrays (``.npz``, ``.npy``).

    A name wins over a folder of that name (write ``./digits`` for the folder). Headers of all chosen images are read,
    so that a file that is no image is found before a long run, not in it.

    Args:
        preprocessing: the network's; may be None for arrays, which are tensors already.
        limit: use at most this many samples, spread evenly over the set.
        seed: draw the ``limit`` samples at random from this seed instead.
        lenient: open no file before its turn, and skip those that cannot be read; a folder may mix levels, and its
            sub-folders are classes where the network names them so.
        task: what targets are wanted of data that could give several; None: what they are laid out for.
        sequences: whether they are frames of sequences; see :func:`csa_deploy.data.sequences.open_sequences`.

    Raises:
        UsageError: nothing there, nothing readable there, or labels that do not fit the network's classes.
        EnvironmentLacksError: the package that holds a named set is not installed.
    """
    if sequences and not lenient:
        dataset: Dataset = open_sequences(str(spec), preprocessing, limit=limit)
    else:
        whole = open_sequences(str(spec), preprocessing) if sequences else None
        dataset = whole or _whole(str(spec), preprocessing, lenient, task)
        dataset = dataset.take(choose(len(dataset), limit, seed)) if limit is not None else dataset
    dataset.lenient = lenient
    if (
        not lenient
        and task is not None
        and dataset.task != task
        and (dataset.labelled or dataset.task != "classification")
    ):
        raise UsageError(
            f"{spec}: holds targets of {dataset.task}, not of {task}", fix=f"give --task {dataset.task}, or other data"
        )
    if not lenient and isinstance(dataset, ImageDataset):
        for sample in dataset.samples:
            sample.check()
    if preprocessing is not None and preprocessing.classes:
        dataset.check_labels(len(preprocessing.classes))
    return dataset


@dataclass(frozen=True)
class Split:
    """The images to train on and, if there are any, those to evaluate on."""

    train: ImageDataset
    held_out: ImageDataset | None


def open_split(
    spec: str, preprocessing: Preprocessing, class_map: Path | None = None, task: Task | None = None
) -> Split:
    """Open the images of a training; no file is read before its turn, so that large sets start at once.

    Args:
        spec: a named set with a training part (``digits``), or a folder with ``train`` and, if there is one, ``val``,
            each with one sub-folder per class or with tar shards; or one of masks or boxes with both parts.
        preprocessing: the network's; its class names, where it has any, decide the labels.
        class_map: text file whose first word per line is a class's folder, in label order; ``class_map.txt`` in the
            folder when it is there. Without one and without class names: the sorted sub-folders of ``train``.
        task: see :func:`open_dataset`.

    Raises:
        UsageError: no such data, no images, folders that are no classes, or an image in both parts.
        EnvironmentLacksError: the package that holds a named set is not installed.
    """
    if f"{spec}:train" in NAMED:
        return Split(NAMED[f"{spec}:train"](preprocessing), NAMED[spec](preprocessing))
    root = Path(spec)
    if root.is_dir() and (layout := layout_of(root, task)):
        split = Split(*(layout.open(root, spec, preprocessing, part) for part in ("train", "val")))
        _require_apart(split)
        return split
    if not (root / "train").is_dir():
        trainable = ", ".join(name.removesuffix(":train") for name in NAMED if name.endswith(":train"))
        raise UsageError(
            f"{spec}: neither a data set to train on nor a folder with a sub-folder 'train'",
            fix=f"give a folder with train/ and val/, or one of {trainable}",
        )
    classes = training_classes(root, preprocessing.classes, class_map)
    parts = [open_images(p, str(p), preprocessing, classes) for p in (root / "train", root / "val") if p.is_dir()]
    for part in parts:
        if part.labels is None:
            raise UsageError(f"{part.name}: no labelled images", fix="give one sub-folder per class")
    return Split(parts[0], parts[1] if len(parts) > 1 else None)


def _require_apart(split: Split) -> None:
    assert split.held_out is not None
    both = {str(sample.source) for sample in split.train.samples} & {str(s.source) for s in split.held_out.samples}
    if both:
        raise UsageError(
            f"{split.train.name}: {len(both)} images are in train and val, the first is {min(both)}",
            fix="give the data both parts, see docs/data.md",
        )


def require_dataset(spec: str) -> None:
    """Raise UsageError where ``spec`` names no set, and nothing is there; opens nothing."""
    path, _ = _part_of(spec)
    if (
        spec not in NAMED
        and not path.is_dir()
        and not (path.suffix in (".csv", ".json", LIST, *ARRAYS) and path.is_file())
    ):
        raise _unknown(spec, path)


def _whole(spec: str, preprocessing: Preprocessing | None, lenient: bool, task: Task | None) -> Dataset:
    """All samples of a source, its files not opened yet."""
    path, part = _part_of(spec)
    if spec in NAMED:
        if path.exists():
            logger.warning("%s: the data set of that name is used, not what lies here: for that write ./%s", spec, spec)
        return NAMED[spec](_needed(preprocessing, spec))
    if path.suffix == ".csv" and path.is_file():
        return open_table(path, spec, _needed(preprocessing, spec))
    if path.suffix == ".json" and path.is_file():
        return open_coco(
            path, spec, _needed(preprocessing, spec), "segmentation" if task == "segmentation" else "detection"
        )
    if path.is_dir():
        layout = layout_of(path, task, any_task=lenient)
        if layout is None and lenient:
            layout = layout_of(path, None, any_task=True)
        if layout is not None:
            return layout.open(path, spec, _needed(preprocessing, spec), part or ("train" if lenient else "val"))
        if part:
            return _folder_part(path, part, spec, _needed(preprocessing, spec))
        return _folder(path, spec, _needed(preprocessing, spec), lenient)
    if path.suffix in ARRAYS:
        name = path.stem if GIVEN_FILE.fullmatch(path.name) else spec
        return ArrayDataset(path, name, preprocessing.classes if preprocessing else ())
    raise _unknown(spec, path)


def _part_of(spec: str) -> tuple[Path, str]:
    """The folder and its part that ``folder:part`` names, where nothing of that name lies here; else the path alone.

    Raises:
        UsageError: the folder has no such part.
    """
    base, _, part = spec.rpartition(":")
    if spec in NAMED or not base or not part or Path(spec).exists() or not Path(base).is_dir():
        return Path(spec), ""
    if part not in (known := parts_of(Path(base))):
        raise UsageError(
            f"{spec}: {unknown('part', part, known)}", fix=f"parts of {base}: {', '.join(known) or 'none'}"
        )
    return Path(base), part


def _folder_part(root: Path, part: str, name: str, preprocessing: Preprocessing) -> Dataset:
    """Images of a part of a folder, with the labels of the training where there is one."""
    classes = training_classes(root, preprocessing.classes) if (root / "train").is_dir() else ()
    return open_images(root / part, name, preprocessing, classes)


def _folder(path: Path, name: str, preprocessing: Preprocessing, lenient: bool) -> Dataset:
    """Images of a folder; of one with ``train`` and ``val`` those of ``val``, with the labels of the training."""
    if lenient:
        return open_images(path, name, preprocessing, lenient=True)
    if _is_imagenet(path, preprocessing):
        return open_imagenet(path, name, preprocessing)
    root = split_of(path, preprocessing.classes)
    if root is not None and path.resolve() == root.resolve():
        path, name = path / "val", f"{name}/val"
    classes = training_classes(root, preprocessing.classes) if root is not None else ()
    return open_images(path, name, preprocessing, classes)


def _needed(preprocessing: Preprocessing | None, spec: str) -> Preprocessing:
    if preprocessing is None:
        raise UsageError(
            f"{spec}: holds images, but the network declares no preprocessing",
            fix="give the data as .npz with one array per network input",
        )
    return preprocessing


def _is_imagenet(folder: Path, preprocessing: Preprocessing) -> bool:
    """ImageNet's layout, unless a class map or the names of the network's classes say what its folders mean."""
    names = set(preprocessing.classes)
    root = split_of(folder, tuple(names)) or folder
    known = {p.name for place in (folder, root / "val") if place.is_dir() for p in place.iterdir()}
    return is_imagenet(folder) and not (names & known or (root / CLASS_MAP).is_file())


def _unknown(spec: str | Path, path: Path) -> UsageError:
    if path.is_file():
        return UsageError(f"{spec}: neither a folder of images, a .csv table, a COCO .json nor an .npz file")
    named = did_you_mean(str(spec), NAMED, f"named data sets: {', '.join(NAMED)}")
    return UsageError(f"{spec}: no such data set, folder or .npz file", fix=named)
