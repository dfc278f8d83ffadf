"""The worst samples of a comparison, side by side: each with what the reference and every graph made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from csa_deploy.records.report import BackendAnswer, ClassShare, WorstOfOutput, WorstSample
from csa_deploy.records.verify import JudgedCandidate, VerifyRecord
from csa_deploy.report.labels import label_of
from csa_deploy.verify.results import SAMPLES, column_key
from csa_deploy.workspace import Workspace

MOST_SAMPLES = 8
_MOST_CLASSES = 3


def worst_samples(workspace: Workspace, verified: VerifyRecord | None) -> tuple[WorstOfOutput, ...]:
    """Per output the samples that are among the worst of any candidate: other classes first, then by rank."""
    path = workspace.root / SAMPLES
    if not verified or not path.is_file():
        return ()
    names = dict.fromkeys(o.name for c in verified.candidates for o in c.outputs)
    with np.load(path, allow_pickle=False) as stored:
        return tuple(WorstOfOutput(name, _Output(stored, verified, name).samples()) for name in names)


class _Output:
    """One output of all candidates, in the stored columns."""

    def __init__(self, stored: Any, verified: VerifyRecord, name: str) -> None:
        self.stored, self.verified, self.name = stored, verified, name
        self.rows = {str(identity): row for row, identity in enumerate(stored["id"])}
        entries = [w for c in verified.candidates for w in _worst(c, name)]
        shown = [k for w in entries for side in ("reference_classes", "classes") for k in w.get(side, [])]
        self.names = {k["class"]: k["name"] or f"class {k['class']}" for k in shown}

    def samples(self) -> tuple[WorstSample, ...]:
        rank: dict[str, int] = {}
        for candidate in self.verified.candidates:
            for place, worst in enumerate(_worst(candidate, self.name)):
                rank[worst["id"]] = min(place, rank.get(worst["id"], place))
        found = [self._sample(identity) for identity in rank if identity in self.rows]
        return tuple(sorted(found, key=lambda s: (not s.disagrees, rank[s.id]))[:MOST_SAMPLES])

    def _sample(self, identity: str) -> WorstSample:
        row = self.rows[identity]
        backends = [b for c in self.verified.candidates if (b := self._backend(c.label, row))]
        disagrees = not all(b.agrees for b in backends)
        if backends and (said := self._classes(self.verified.candidates[0].label, "reference_", row)):
            backends.insert(0, BackendAnswer(self.verified.reference_name, None, True, said))
        label = self._class(int(self.stored["label"][row])) if "label" in self.stored.files else None
        return WorstSample(identity, label, disagrees, tuple(backends))

    def _backend(self, label: str, row: int) -> BackendAnswer | None:
        error, agrees = (self._value(label, what, row) for what in ("max_abs_error", "agrees"))
        if error is None:
            return None
        agreed = bool(agrees is None or agrees > 0)
        return BackendAnswer(label_of(label), float(error), agreed, self._classes(label, "", row))

    def _classes(self, label: str, side: str, row: int) -> tuple[ClassShare, ...]:
        classes, shares = (self._value(label, f"{side}{what}", row) for what in ("classes", "probabilities"))
        if classes is None:
            return ()
        pairs = [(int(c), float(p)) for c, p in zip(classes, shares, strict=True) if np.isfinite(p)]
        return tuple(ClassShare(self._class(c), p) for c, p in pairs[:_MOST_CLASSES])

    def _class(self, index: int) -> str:
        return self.names.get(index, f"class {index}")

    def _value(self, label: str, metric: str, row: int) -> Any:
        column = column_key(label, self.name, metric)
        return self.stored[column][row] if column in self.stored.files else None


def _worst(candidate: JudgedCandidate, output: str) -> tuple[dict[str, Any], ...]:
    return next((o.worst for o in candidate.outputs if o.name == output), ())
