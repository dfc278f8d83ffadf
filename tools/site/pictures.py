"""Draws the pictures of docs/pictures: ``python -m tools.site.pictures [NAME...]``.

What is drawn is asked of the package: its stages, levels of evidence and intervals, and a repair and a calibration
that are run for it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

import csa_deploy as csa
from csa_deploy.levels import LEVELS
from csa_deploy.metrics.intervals import share as share_interval
from csa_deploy.stages import STAGES
from tools.site.svg import BAD, CALM, DOUBT, GOOD, GREY, INK, Picture

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"

_MAKES = {
    "export": ("ONNX graph", "equal to PyTorch"),
    "optimize": ("smaller graph", "each rewrite proved"),
    "check": ("verdict per scope", "with its evidence"),
    "repair": ("allowed graph", "exact repairs"),
    "precision": ("FP16, INT8 graphs", "by measured error"),
    "split": ("parts", "GPU and DLA"),
    "build": ("engines", "passport and log"),
    "verify": ("accuracy verdict", "with intervals"),
    "profile": ("latencies", "with limits"),
    "report": ("report.html", "one page"),
}


def pipeline() -> Picture:
    """The stages of a run in their order, and what each leaves."""
    width, gap, left = 168, 22, 24
    rows = [list(STAGES)[start : start + 5] for start in range(0, len(STAGES), 5)]
    picture = Picture(left * 2 + 5 * width + 4 * gap, 58 + 128 * len(rows), "Stages of csa-deploy run, in their order")
    picture.text(left, 34, "A network goes in, evidence comes out", size=18, font_weight="600")
    for row, names in enumerate(rows):
        for column, name in enumerate(names):
            x, y = left + column * (width + gap), 54 + row * 128
            makes, how = _MAKES[name]
            picture.box(x, y, width, 96, CALM if name == "report" else "#ffffff")
            picture.text(x + 14, y + 28, name, size=17, font_weight="600")
            picture.text(x + 14, y + 56, makes)
            picture.text(x + 14, y + 78, how, size=13, color=GREY)
            if column + 1 < len(names):
                picture.arrow(x + width, y + 48, x + width + gap, y + 48)
    return picture


def levels() -> Picture:
    """The levels of evidence as steps, weakest at the bottom."""
    step, left = 58, 24
    picture = Picture(900, 70 + step * len(LEVELS), "Levels of evidence, weakest at the bottom")
    picture.text(left, 34, "Each level says more than the one below", size=18, font_weight="600")
    for number, (name, meaning) in enumerate(LEVELS.items()):
        x, y = left + number * 28, 54 + step * (len(LEVELS) - 1 - number)
        picture.box(x, y, 900 - 2 * left - number * 28, step - 8, CALM if number < 2 else "#ffffff")
        picture.text(x + 14, y + 31, name, size=16, font_weight="600")
        picture.text(x + 206, y + 31, meaning, color=GREY)
    return picture


def intervals() -> Picture:
    """The interval of agreement, when all samples agree, against a bound of 99 %."""
    counts, bound = (20, 50, 100, 200, 368, 736, 1000), 0.99
    left, right, low = 150, 800, 0.80
    picture = Picture(980, 100 + 42 * len(counts), "95 % intervals of agreement by the number of samples")
    picture.text(24, 34, "All samples agree. Does that show 99 % agreement?", size=18, font_weight="600")

    def place(share: float) -> float:
        return left + (share - low) / (1 - low) * (right - left)

    end = 64 + 42 * len(counts)
    picture.line(place(bound), 52, place(bound), end, INK, 1.5, "5 4")
    picture.text(place(bound), end + 20, "99 %", anchor="middle", color=INK)
    for share in (0.80, 0.85, 0.90, 0.95):
        picture.text(place(share), end + 20, f"{share:.0%}".replace("%", " %"), anchor="middle", color=GREY)
    for row, count in enumerate(counts):
        lower, y = share_interval(count, count)[0], 72 + 42 * row
        passes = lower >= bound
        color = GOOD if passes else DOUBT
        picture.text(24, y + 5, f"{count} samples", color=INK)
        start = max(place(lower), left)
        picture.line(start, y, right, y, color, 4)
        picture.line(start, y - 8, start, y + 8, color, 2.5)
        picture.text(right + 16, y + 5, "pass" if passes else "undecided", color=color, font_weight="600")
    return picture


_TOY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.nn.functional.relu6(self.conv(x)).mean((2, 3)))
"""


def repaired_example() -> Any:
    """A network that drive-os-6 denies, exported, and what ``check --fix`` makes of it."""
    import torch

    torch.manual_seed(0)
    space: dict[str, Any] = {"__name__": "toy"}
    exec(_TOY, space)  # a text of this file
    net = csa.export(space["Net"](), size=16)
    return net, csa.repair(net, scopes=["drive-os-6"])


def fix() -> Picture:
    """The operators of a graph before and after the repair for drive-os-6."""
    net, repaired = repaired_example()
    # As check reads it: what depends on constants alone is arithmetic of the exporter.
    before, after = _chain(csa.optimize(net).graph), _chain(repaired.graph)
    old, new = repaired.before.scopes[0], repaired.report.scopes[0]
    blamed = {finding.op: finding.verdict for finding in old.findings if finding.verdict != "note"}
    height = 100 + 46 * max(len(before), len(after))
    picture = Picture(820, height, f"A graph before and after --fix: {old.verdict}, then {new.verdict}")
    for x, title, verdict, ops, marked in (
        (24, "before", old.verdict, before, blamed),
        (430, "after check --scope drive-os-6 --fix", new.verdict, after, {}),
    ):
        color = GOOD if verdict == "allowed" else BAD
        picture.text(x, 34, title, size=17, font_weight="600")
        picture.text(x, 58, verdict, color=color, font_weight="600")
        for row, op in enumerate(ops):
            y = 74 + 46 * row
            said, fresh = marked.get(op, ""), x > 24 and op not in before
            tint = {"denied": BAD, "unknown": DOUBT}.get(said, INK)
            picture.box(x, y, 230, 32, CALM if fresh else "#ffffff", tint if said else GREY)
            picture.text(x + 12, y + 21, op, color=tint)
            picture.text(x + 242, y + 21, said, color=tint, size=13)
            if row + 1 < len(ops):
                picture.arrow(x + 115, y + 32, x + 115, y + 46)
    return picture


def _chain(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def histogram() -> Picture:
    """Calibration of one tensor of csa_digits: its histogram, and the thresholds of all methods."""
    with TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"samples": 64, "search": False, "techniques": "none"}
        csa.quantize("csa_digits", workspace=folder, calib="digits:train", **settings)
        (path,) = Path(folder).rglob("audit.json")
        tensors = json.loads(path.read_text(encoding="utf-8"))["tensors"]
    # The tensor whose methods differ most shows best what they do.
    name, found = max(tensors.items(), key=lambda item: _spread(item[1]["thresholds"]))
    return draw_histogram(name, found)


def _spread(thresholds: dict[str, float]) -> float:
    values = [value for method, value in thresholds.items() if method != "entropy-published" and value > 0]
    return max(values) / min(values) if values else 0.0


def draw_histogram(name: str, found: dict[str, Any]) -> Picture:
    """A tensor of the audit: values by magnitude, on a logarithmic scale, and what each method takes as the largest."""
    counts, width = found["histogram"]["counts"], found["histogram"]["width"]
    shown = counts[: math.ceil(found["largest"] / width)]
    left, right, base, top = 60, 860, 330, 70
    picture = Picture(920, 470, f"Histogram of the tensor {name} with the threshold of each calibration method")
    picture.text(24, 34, f"Calibration of csa_digits, tensor {name}: where does INT8 end?", size=18, font_weight="600")

    def place(value: float) -> float:
        return left + value / (len(shown) * width) * (right - left)

    highest = math.log10(max(shown) + 1)
    for number, count in enumerate(shown):
        height = math.log10(count + 1) / highest * (base - top)
        picture.bar(place(number * width), base - height, (right - left) / len(shown) - 1, height, "#8fbdb8")
    picture.line(left, base, right, base, GREY)
    picture.text(left, base + 20, "0", color=GREY)
    picture.text(right, base + 20, f"{found['largest']:.1f} seen", anchor="end", color=GREY)
    chosen = sorted(found["thresholds"].items(), key=lambda item: item[1])
    for row, (method, value) in enumerate(chosen):
        color, y = (BAD if method == "mse" else INK), base + 40 + 19 * row
        picture.line(place(value), top - 8, place(value), y - 4, color, 1.5, "" if method == "mse" else "4 4")
        said = f"{method}{' (default)' if method == 'mse' else ''} {value:.2f}, clips {found['clipped'][method]:.4%}"
        picture.text(place(value) - 8, y, said.replace("%", " %"), size=13, color=color, anchor="end")
    picture.text(24, 458, "magnitude; counts are logarithmic", size=13, color=GREY)
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "pipeline": pipeline,
    "levels": levels,
    "intervals": intervals,
    "fix": fix,
    "histogram": histogram,
}


def main(names: list[str]) -> None:
    """Write these pictures; without a name all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        (FOLDER / f"{name}.svg").write_text(str(PICTURES[name]()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
