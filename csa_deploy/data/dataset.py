"""The way from what a user types to a data set."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from csa_deploy.data.arrays import ArrayDataset
from csa_deploy.data.base import Chooser, Dataset, choose
from csa_deploy.data.folder import CLASS_MAP, open_folder, open_shards, split_of, training_classes
from csa_deploy.data.imagenet import is_imagenet, open_imagenet
from csa_deploy.data.named import NAMED
from csa_deploy.data.shards import shards_in
from csa_deploy.data.table import open_table
from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean
from csa_deploy.network import Preprocessing

logger = logging.getLogger(__name__)


def open_dataset(
    spec: str | Path, preprocessing: Preprocessing | None, *, limit: int | None = None, seed: int | None = None
) -> Dataset:
    """Open a data set: a name (``digits``, ``photos``, ...), a folder of images, a ``.csv`` table or an ``.npz``.

    A name wins over a folder of that name (write ``./digits`` for the folder). Headers of all chosen images are read,
    so that a file that is no image is found before a long run, not in it.

    Args:
        spec: what the user typed.
        preprocessing: the network's; may be None for ``.npz`` files, which hold tensors.
        limit: use at most this many samples, spread evenly over the set.
        seed: draw the ``limit`` samples at random from this seed instead.

    Raises:
        UsageError: nothing there, nothing readable there, or labels that do not fit the network's classes.
        EnvironmentLacksError: the package that holds a named set is not installed.
    """
    chooser = partial(choose, limit=limit, seed=seed)
    if str(spec) in NAMED:
        if Path(spec).exists():
            logger.warning("%s: the data set of that name is used, not what lies here: for that write ./%s", spec, spec)
        dataset: Dataset = NAMED[str(spec)](_needed(preprocessing, spec), chooser)
    else:
        path = Path(spec)
        if path.is_dir() and _is_imagenet(path, preprocessing):
            dataset = open_imagenet(path, str(spec), _needed(preprocessing, spec), chooser)
        elif path.suffix == ".csv" and path.is_file():
            dataset = open_table(path, str(spec), _needed(preprocessing, spec), chooser)
        elif path.is_dir():
            dataset = _images(path, str(spec), _needed(preprocessing, spec), chooser)
        elif path.suffix == ".npz":
            dataset = ArrayDataset(path, str(spec), chooser, preprocessing.classes if preprocessing else ())
        else:
            raise _unknown(spec, path)
    if preprocessing is not None and preprocessing.classes:
        dataset.check_labels(len(preprocessing.classes))
    return dataset


def require_dataset(spec: str) -> None:
    """Raise UsageError where ``spec`` names no set, and nothing is there; opens nothing."""
    path = Path(spec)
    if spec not in NAMED and not path.is_dir() and not (path.suffix in (".csv", ".npz") and path.is_file()):
        raise _unknown(spec, path)


def _images(path: Path, name: str, preprocessing: Preprocessing, choose: Chooser) -> Dataset:
    """Images of a folder; of one with ``train`` and ``val`` those of ``val``, with the labels of the training."""
    root = split_of(path, preprocessing.classes)
    if root is not None and path.resolve() == root.resolve():
        path, name = path / "val", f"{name}/val"
    if shards := shards_in(path):
        return open_shards(path, shards, name, preprocessing, choose)
    classes = training_classes(root, preprocessing.classes) if root is not None else ()
    return open_folder(path, name, preprocessing, choose, classes)


def _needed(preprocessing: Preprocessing | None, spec: str | Path) -> Preprocessing:
    if preprocessing is None:
        raise UsageError(
            f"{spec}: holds images, but the network declares no preprocessing",
            fix="give the data as .npz with one array per network input",
        )
    return preprocessing


def _is_imagenet(folder: Path, preprocessing: Preprocessing | None) -> bool:
    """ImageNet's layout, unless a class map or the names of the network's classes say what its folders mean."""
    names = set(preprocessing.classes) if preprocessing else set()
    root = split_of(folder, tuple(names)) or folder
    known = {p.name for place in (folder, root / "val") if place.is_dir() for p in place.iterdir()}
    return is_imagenet(folder) and not (names & known or (root / CLASS_MAP).is_file())


def _unknown(spec: str | Path, path: Path) -> UsageError:
    if path.is_file():
        return UsageError(f"{spec}: neither a folder of images, a .csv table nor an .npz file")
    named = did_you_mean(str(spec), NAMED, f"named data sets: {', '.join(NAMED)}")
    return UsageError(f"{spec}: no such data set, folder or .npz file", fix=named)
