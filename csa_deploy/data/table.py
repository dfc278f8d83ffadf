"""Tables of files and labels: a ``.csv`` with the columns ``file`` and, where there are labels, ``label``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.samples import Sample
from csa_deploy.errors import UsageError
from csa_deploy.naming import nearest
from csa_deploy.network import Preprocessing

_FILE, LABEL = "file", "label"


def open_table(path: Path, name: str, preprocessing: Preprocessing) -> ImageDataset:
    """A data set over the rows of a table; files are relative to the table's folder.

    A label is a class index, or a class name where the network names its classes.

    Raises:
        UsageError: no rows, no such columns, or a label that is no class.
    """
    rows = _rows(path)
    labelled = LABEL in rows[0]
    samples = []
    for index, row in enumerate(rows):
        where = f"{path}: row {index + 2}"
        if not row[_FILE]:
            raise UsageError(f"{where}: names no file", fix="give every row a file")
        label = _label(row[LABEL], preprocessing.classes, where) if labelled else None
        samples.append(Sample(f"{index:06d} {row[_FILE]}", label, path.parent / row[_FILE]))
    return ImageDataset(name, samples, preprocessing.classes, preprocessing)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a table ({error})", fix="give a comma-separated text") from None
    if not rows:
        raise UsageError(f"{path}: holds no rows", fix=f"write a line '{_FILE},{LABEL}' and one line per image")
    if _FILE not in rows[0]:
        listed = ", ".join(str(key) for key in rows[0])
        raise UsageError(f"{path}: has no column '{_FILE}', but {listed}", fix=f"name the columns {_FILE},{LABEL}")
    return rows


def _label(text: str | None, classes: Sequence[str], where: str) -> int:
    text = (text or "").strip()
    if text in classes:
        return list(classes).index(text)
    if text.isdecimal():
        return int(text)
    near = nearest(text, classes)
    raise UsageError(
        f"{where}: the label '{text}' is neither a class index nor a class of the network",
        fix=f"nearest class: {near[0]}" if near else "write class indices, counted from 0",
    )
