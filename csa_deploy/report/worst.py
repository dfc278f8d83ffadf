"""The worst samples of a comparison, side by side: each with what the reference and every graph made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from csa_deploy.report.labels import label_of, reference_of
from csa_deploy.verify.results import SAMPLES
from csa_deploy.workspace import Workspace

Row = dict[str, Any]
MOST_SAMPLES = 8
_MOST_CLASSES = 3


def worst_samples(workspace: Workspace, verified: Row | None) -> list[Row]:
    """Per output the samples that are among the worst of any candidate: other classes first, then by rank.

    Returns:
        Per output ``output`` and ``samples``; per sample ``id``, ``label`` (class name or None), ``disagrees`` and
        ``backends``, the reference first: ``name``, ``error`` (None for the reference), ``agrees`` and the strongest
        ``classes`` (``name`` and ``share``; empty for an output that is no classification).
    """
    path = workspace.root / SAMPLES
    if not verified or not path.is_file():
        return []
    names = list(dict.fromkeys(o["name"] for c in verified["candidates"] for o in c["outputs"]))
    with np.load(path, allow_pickle=False) as stored:
        return [{"output": name, "samples": _Output(stored, verified, name).samples()} for name in names]


class _Output:
    """One output of all candidates, in the stored columns."""

    def __init__(self, stored: Any, verified: Row, name: str) -> None:
        self.stored, self.verified, self.name = stored, verified, name
        self.rows = {str(identity): row for row, identity in enumerate(stored["id"])}
        entries = [w for c in verified["candidates"] for w in _worst(c, name)]
        shown = [k for w in entries for side in ("reference_classes", "classes") for k in w.get(side, [])]
        self.names = {k["class"]: k["name"] or f"class {k['class']}" for k in shown}

    def samples(self) -> list[Row]:
        rank: dict[str, int] = {}
        for candidate in self.verified["candidates"]:
            for place, worst in enumerate(_worst(candidate, self.name)):
                rank[worst["id"]] = min(place, rank.get(worst["id"], place))
        found = [self._sample(identity) for identity in rank if identity in self.rows]
        return sorted(found, key=lambda s: (not s["disagrees"], rank[s["id"]]))[:MOST_SAMPLES]

    def _sample(self, identity: str) -> Row:
        row = self.rows[identity]
        backends = [b for c in self.verified["candidates"] if (b := self._backend(c["label"], row))]
        disagrees = not all(b["agrees"] for b in backends)
        if backends and (said := self._classes(self.verified["candidates"][0]["label"], "reference_", row)):
            backends.insert(0, {"name": reference_of(self.verified), "error": None, "agrees": True, "classes": said})
        label = self._class(int(self.stored["label"][row])) if "label" in self.stored.files else None
        return {"id": identity, "label": label, "disagrees": disagrees, "backends": backends}

    def _backend(self, label: str, row: int) -> Row | None:
        error, agrees = (self._value(label, what, row) for what in ("max_abs_error", "agrees"))
        if error is None:
            return None
        said = self._classes(label, "", row)
        return {
            "name": label_of(label),
            "error": float(error),
            "agrees": bool(agrees is None or agrees > 0),
            "classes": said,
        }

    def _classes(self, label: str, side: str, row: int) -> list[Row]:
        classes, shares = (self._value(label, f"{side}{what}", row) for what in ("classes", "probabilities"))
        if classes is None:
            return []
        pairs = [(int(c), float(p)) for c, p in zip(classes, shares, strict=True) if np.isfinite(p)]
        return [{"name": self._class(c), "share": p} for c, p in pairs[:_MOST_CLASSES]]

    def _class(self, index: int) -> str:
        return self.names.get(index, f"class {index}")

    def _value(self, label: str, metric: str, row: int) -> Any:
        column = f"{label}/{self.name}/{metric}"
        return self.stored[column][row] if column in self.stored.files else None


def _worst(candidate: Row, output: str) -> list[Row]:
    return next((o["worst"] for o in candidate["outputs"] if o["name"] == output), [])
