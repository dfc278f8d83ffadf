"""What a training of segmentation or detection minimises, as plain formulas on raw outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE = 1.5
"""Places up to so many strides from a box's centre learn the box (FCOS's centre sampling)."""
COARSER = 3.5
"""A box whose longer side has at most so many strides of a level belongs to it, a longer one to a coarser level."""
_FOCUS = 2.0  # exponent of the quality focal loss
_BOX_WEIGHT, _CLASS_WEIGHT = 2.0, 0.5
_OBJECTS_WEIGHT = 2.0  # of the cross entropy among a segmentation's objects


def segmentation_loss(logits: Tensor, classes: Tensor, background: int | None = None) -> Tensor:
    """Mean cross entropy of all pixels, and the mean Dice loss of the classes in the batch.

    Where most pixels are of a background, both say little about which object a pixel belongs to, and a network is slow
    to learn that. So the mean cross entropy among the other classes is added twice, of the pixels that are of these; it
    does not move the border between objects and background. In the mean of all pixels those of objects count twice: a
    class of which half is found has the best IoU where its pixels count from a probability of about 1/3 on.

    Args:
        logits: (N, classes, H, W).
        classes: int64 (N, H, W); -1 where a pixel does not count.
        background: index of the class that is no object; None: there is none.
    """
    counted = classes >= 0
    known = classes.clamp(min=0)
    logs = logits.contiguous().log_softmax(dim=1)  # the one pass over all logits; on a CPU it costs less on planes
    own = logs.gather(1, known[:, None])[:, 0]
    objects = counted & (classes != background)
    weights = counted.to(logs.dtype) if background is None else counted.to(logs.dtype) + objects
    loss = -(own * weights).sum() / counted.sum()
    shares = logs.exp() if counted.all() else logs.exp() * counted[:, None]
    pixels = torch.bincount(classes.flatten() + 1, minlength=logits.shape[1] + 1)[1:]
    found = (own.exp() * counted).flatten()
    both = torch.zeros_like(pixels, dtype=logs.dtype).index_add(0, known.flatten(), found)
    either, present = shares.sum(dim=(0, 2, 3)) + pixels, pixels > 0
    if present.any():
        loss = loss + (1 - 2 * both / either.clamp(min=1e-6))[present].mean()
    if background is not None and objects.any():
        rows, wanted = logits.movedim(1, -1)[objects], classes[objects]
        among = torch.cat([rows[:, :background], rows[:, background + 1 :]], dim=1)
        loss = loss + _OBJECTS_WEIGHT * F.cross_entropy(among, wanted - (wanted > background).long())
    return loss


def points(height: int, width: int, *, stride: int) -> Tensor:
    """The places of a map in the image: (height * width, 2) as x, y in pixels, row by row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).add(0.5) * stride


def assign(places: Tensor, strides: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
    """Which box each place learns: (N, P) indices into the boxes, -1 for the background.

    A box belongs to the finest level whose stride times :data:`COARSER` is at least its longer side, else to the
    coarsest. Of this level those places learn it that are, in x and in y, at most half of its side and at most
    :data:`CENTRE` strides from its centre; but half a stride is always near enough, so that a thin box has a place. Of
    several boxes a place learns the smallest.

    Args:
        places: (P, 2) as x, y in pixels.
        strides: (P,) of each place's level.
        boxes: (N, M, 4) as x0, y0, x1, y1.
        valid: bool (N, M); False: no box, a filling.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = (boxes[..., 2:] + boxes[..., :2]) / 2
    levels = strides.unique()
    longer = sides.amax(dim=-1)
    level = levels[torch.searchsorted(levels * COARSER, longer).clamp(max=len(levels) - 1)]
    distance = (places[None, :, None] - centres[:, None]).abs()
    pitch = strides[None, :, None, None]
    reach = torch.maximum(torch.minimum(sides[:, None] / 2, CENTRE * pitch), pitch / 2)
    takes = (distance <= reach).all(dim=-1) & (level[:, None] == strides[None, :, None]) & valid[:, None]
    area = sides.prod(dim=-1)[:, None].expand(takes.shape).masked_fill(~takes, torch.inf)
    if not area.shape[2]:
        return torch.full(area.shape[:2], -1, device=boxes.device)
    least, index = area.min(dim=2)
    return index.masked_fill(least.isinf(), -1)


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., 2019) of boxes (n, 4), pair by pair; an inverted box is empty."""
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(dim=1) for b in (first, second)]
    inner = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    common, around = inner.clamp(min=0).prod(dim=1), hull.clamp(min=0).prod(dim=1)
    union = (areas[0] + areas[1] - common).clamp(min=1e-6)
    iou = common / union
    return iou, iou - (around - union) / around.clamp(min=1e-6)


def detection_loss(outputs: Mapping[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """Quality focal loss (Li et al., 2020) of all places and classes, and of the places that have a box two more.

    These are 1 - GIoU, and the cross entropy among the classes: the focal loss says little about which class it is. All
    are sums over the batch, divided by the number of places
    that have a box.

    Args:
        outputs: per level ``logits_S`` (N, classes, h, w) and ``distances_S`` (N, 4, h, w), see
            :class:`csa_models.dense.CSADetection`.
        boxes: (N, M, 4) as x0, y0, x1, y1 in pixels.
        labels: int64 (N, M); -1: no box, a filling.
    """
    strides = [int(name.removeprefix("logits_")) for name in outputs if name.startswith("logits_")]
    logits = torch.cat([outputs[f"logits_{s}"].flatten(2).transpose(1, 2) for s in strides], dim=1)
    raw = torch.cat([outputs[f"distances_{s}"].flatten(2).transpose(1, 2) for s in strides], dim=1)
    grids = [points(*outputs[f"logits_{s}"].shape[-2:], stride=s) for s in strides]
    places = torch.cat(grids).to(boxes.device)
    pitch = torch.cat([torch.full((len(grid),), float(s)) for grid, s in zip(grids, strides, strict=True)])
    pitch = pitch.to(boxes.device)
    assigned = assign(places, pitch, boxes, labels >= 0)
    image, place = (assigned >= 0).nonzero(as_tuple=True)
    box = assigned[image, place]
    reach = raw[image, place] * pitch[place, None]
    predicted = torch.cat([places[place] - reach[:, :2], places[place] + reach[:, 2:]], dim=1)
    iou, giou = overlaps(predicted, boxes[image, box])
    quality = torch.zeros_like(logits)
    quality[image, place, labels[image, box]] = iou.detach()
    focus = (logits.sigmoid() - quality).abs() ** _FOCUS
    classes = (focus * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()
    among = F.cross_entropy(logits[image, place], labels[image, box], reduction="sum")
    return (classes + _CLASS_WEIGHT * among + _BOX_WEIGHT * (1 - giou).sum()) / max(len(place), 1)
