"""How folders of masks and boxes are laid out, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.boxfiles import is_yolo, open_voc_boxes, open_yolo
from csa_deploy.data.coco import open_coco
from csa_deploy.data.masks import open_cityscapes, open_masks, open_voc_masks
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing, Task


@dataclass(frozen=True)
class Layout:
    """One way to lay out a folder.

    Attributes:
        name: as in the tables of docs/data.md.
        fits: whether a folder is laid out so.
        open: (folder, name as given, preprocessing, part of the data where it has parts) to a data set.
        asked: whether it counts only where its task is asked for.
    """

    name: str
    task: Task
    fits: Callable[[Path], bool]
    open: Callable[[Path, str, Preprocessing, str], ImageDataset]
    asked: bool = False


def _holds(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).is_dir() for name in names)


def _coco_files(folder: Path, part: str) -> list[Path]:
    return sorted([*folder.glob(f"instances_{part}*.json"), *folder.glob(f"annotations/instances_{part}*.json")])


def _open_coco(
    folder: Path, name: str, preprocessing: Preprocessing, part: str, task: Task = "detection"
) -> ImageDataset:
    files = _coco_files(folder, part) or _coco_files(folder, "")
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        raise UsageError(f"{folder}: {len(files)} files of annotations: {listed}", fix="name one of them")
    return open_coco(files[0], name, preprocessing, task)


def parts_of(folder: Path) -> list[str]:
    """Names of the parts that a folder has, in whichever layout; none where it has no parts."""
    holders = [folder / "leftImg8bit", folder / "images", folder]
    folders = [p.name for holder in holders if holder.is_dir() for p in holder.iterdir() if p.is_dir()]
    texts = [text.stem for text in folder.glob("ImageSets/*/*.txt")]
    annotated = [file.stem.removeprefix("instances_") for file in _coco_files(folder, "")]
    return sorted({*folders, *texts, *annotated})


LAYOUTS = (
    Layout("Cityscapes", "segmentation", _holds("leftImg8bit", "gtFine"), open_cityscapes),
    Layout("Pascal VOC", "segmentation", _holds("JPEGImages", "SegmentationClass"), open_voc_masks),
    Layout("Pascal VOC", "detection", _holds("JPEGImages", "Annotations"), open_voc_boxes),
    Layout("plain", "segmentation", _holds("images", "masks"), open_masks),
    Layout("COCO", "detection", lambda folder: bool(_coco_files(folder, "")), _open_coco),
    Layout(
        *(
            "COCO",
            "segmentation",
            lambda folder: bool(_coco_files(folder, "")),
            partial(_open_coco, task="segmentation"),
        ),
        asked=True,
    ),
    Layout("YOLO", "detection", is_yolo, open_yolo),
)


def layout_of(folder: Path, task: Task | None, any_task: bool = False) -> Layout | None:
    """The layout of a folder; None for one of images alone.

    Args:
        task: what targets are wanted; None: whichever the folder has.
        any_task: take any of several.

    Raises:
        UsageError: it fits two tasks, and none is asked for.
    """
    possible = [layout for layout in LAYOUTS if layout.task == task or (task is None and not layout.asked)]
    wanted = [layout for layout in possible if layout.fits(folder)]
    if not any_task and len({layout.task for layout in wanted}) > 1:
        held = " or ".join(f"{layout.task} ({layout.name})" for layout in wanted)
        raise UsageError(f"{folder}: holds masks and boxes", fix=f"say with --task which: {held}")
    return wanted[0] if wanted else None
