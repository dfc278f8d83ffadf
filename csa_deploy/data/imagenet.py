"""The layouts in which ImageNet's validation set is kept: a folder per synset, or one folder and a solution file.

A synset's class index is its place in the sorted order of all 1,000, which is how the field numbers the classes; with
fewer synsets and no list of all of them the index would be a guess, so that is refused.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.images import SUFFIXES
from csa_deploy.data.samples import LabelledFiles
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

_CLASSES = 1000
LISTS = ("LOC_synset_mapping.txt", "synsets.txt")
SOLUTION = "LOC_val_solution.csv"
_SYNSET = re.compile(r"n\d{8}")
_IMAGES = ("val", "ILSVRC/Data/CLS-LOC/val", ".")


def is_imagenet(folder: Path) -> bool:
    """Whether a folder is laid out like ImageNet: it has a solution file, or sub-folders named by synset."""
    return (folder / SOLUTION).is_file() or _synset_folder(folder) is not None


def open_imagenet(folder: Path, name: str, preprocessing: Preprocessing) -> ImageDataset:
    """The validation set below ``folder``.

    Raises:
        UsageError: synsets whose numbers are not known, or no images.
    """
    by_synset = _synset_folder(folder)
    files = _from_solution(folder) if by_synset is None else _from_folders(by_synset)
    numbers = _numbers(folder, {synset for _, synset in files}, by_synset)
    if not files:
        raise UsageError(f"{folder}: no images in this folder", fix=f"images are files named *{', *'.join(SUFFIXES)}")
    names = [path.relative_to(folder).as_posix() for path, _ in files]
    samples = LabelledFiles(names, [numbers[synset] for _, synset in files], folder)
    return ImageDataset(name, samples, preprocessing.classes, preprocessing)


def _synset_folder(folder: Path) -> Path | None:
    for place in _IMAGES:
        inside = folder / place
        if inside.is_dir() and any(_SYNSET.fullmatch(p.name) and p.is_dir() for p in inside.iterdir()):
            return inside
    return None


def _from_folders(folder: Path) -> list[tuple[Path, str]]:
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and _SYNSET.fullmatch(p.name))
    return [(f, sub.name) for sub in subfolders for f in sorted(sub.iterdir()) if f.suffix.lower() in SUFFIXES]


def _from_solution(folder: Path) -> list[tuple[Path, str]]:
    with (folder / SOLUTION).open(newline="", encoding="utf-8") as stream:
        synsets = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    found = []
    for place in _IMAGES:
        paths = sorted((folder / place).glob("*")) if (folder / place).is_dir() else []
        found = [(p, synsets[p.stem]) for p in paths if p.suffix.lower() in SUFFIXES and p.stem in synsets]
        if found:
            break
    return found


def _numbers(folder: Path, used: set[str], by_synset: Path | None) -> dict[str, int]:
    for name in LISTS:
        for place in (folder, folder.parent):
            if (place / name).is_file():
                lines = (place / name).read_text(encoding="utf-8").splitlines()
                known = sorted(line.split()[0] for line in lines if line.strip())
                return _numbered(known, used, place / name)
    if by_synset is not None:
        used = {p.name for p in by_synset.iterdir() if p.is_dir() and _SYNSET.fullmatch(p.name)}
    if len(used) == _CLASSES:
        return _numbered(sorted(used), used, folder)
    raise UsageError(
        f"{folder}: {len(used)} synsets of {_CLASSES}, so it is not known which class indices they are",
        fix=f"put {LISTS[0]} with all {_CLASSES} synsets there, or name the sub-folders as the network's classes",
    )


def _numbered(known: list[str], used: set[str], where: Path) -> dict[str, int]:
    missing = sorted(used - set(known))
    if missing:
        raise UsageError(f"{where}: does not list the synset {missing[0]}", fix="give the list that the images follow")
    return {synset: number for number, synset in enumerate(known)}
