"""How well the static pack agrees with NVIDIA's validator, on any collection of models.

``python -m tools.probe.agreement FOLDER`` compares every ``.onnx`` file below a folder; without a
folder, the node tests that the onnx package ships, none of which is a probe.
"""

from __future__ import annotations

import base64
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_deploy.restricted.check import check
from csa_deploy.restricted.validator import ValidatorSession, interpret
from tools.probe.run import TIMEOUT, WORKER

SCOPE = "drive-os-7"


@dataclass(frozen=True)
class Comparison:
    """One model, judged twice.

    Attributes:
        name: the model's name.
        static: verdict of the rule pack (``allowed``, ``denied``, ``unknown``).
        answer: what the validator answered.
        reasons: rules behind a static verdict other than allowed.
        refused: layers that the validator refused.
    """

    name: str
    static: str
    answer: str
    reasons: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the validator gave a verdict at all."""
        return self.answer in ("accepted", "refused")

    @property
    def agrees(self) -> bool:
        """Whether both say the same; unknown agrees with neither."""
        return (self.static, self.answer) in (("allowed", "accepted"), ("denied", "refused"))

    @property
    def is_false_allowed(self) -> bool:
        """The one error that must not happen: allowed by the pack, refused by the validator."""
        return self.static == "allowed" and self.answer == "refused"


@dataclass(frozen=True)
class Agreement:
    """All comparisons of a collection."""

    comparisons: tuple[Comparison, ...]

    @property
    def table(self) -> dict[tuple[str, str], int]:
        """Number of models per (static verdict, answer of the validator)."""
        return dict(Counter((item.static, item.answer) for item in self.comparisons))

    @property
    def judged(self) -> int:
        """Number of models on which the validator gave a verdict."""
        return sum(item.counts for item in self.comparisons)

    @property
    def rate(self) -> float | None:
        """Share of agreement where the validator gave a verdict; None when it gave none."""
        return sum(item.agrees for item in self.comparisons) / self.judged if self.judged else None

    @property
    def false_allowed(self) -> tuple[str, ...]:
        """Names of the models that the pack allows and the validator refuses."""
        return tuple(item.name for item in self.comparisons if item.is_false_allowed)


def compare(
    models: Iterable[tuple[str, bytes]],
    session: ValidatorSession,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Judge each model by the pack and by the validator.

    Args:
        models: name and serialized ONNX model.
        session: a session whose child is the probes' worker.
        progress: called with the number of compared models and of all models.
    """
    todo = list(models)
    comparisons = []
    for done, (name, data) in enumerate(todo, start=1):
        comparisons.append(compare_one(name, data, session))
        if progress:
            progress(done, len(todo))
    return Agreement(tuple(comparisons))


def compare_one(name: str, data: bytes, session: ValidatorSession) -> Comparison:
    """Judge one serialized model both ways."""
    import onnx

    verdict = interpret(session.exchange({"onnx": base64.b64encode(data).decode()}))
    scope = check(onnx.load_model_from_string(data), [SCOPE]).scopes[0]
    reasons = sorted({f"{item.rule}: {item.message}" for item in scope.findings if item.verdict != "note"})
    refused = sorted({item.layer for item in verdict.get("refused", ())})
    return Comparison(name, scope.verdict, verdict["answer"], tuple(reasons), tuple(refused))


def node_tests() -> Iterator[tuple[str, bytes]]:
    """The node tests of the onnx package: about 1,900 models of one or a few nodes."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests overflow on purpose
        for case in collect_testcases(None):
            if case.model is not None:
                yield case.name, case.model.SerializeToString()


def folder(path: Path) -> Iterator[tuple[str, bytes]]:
    """The ONNX files below a folder."""
    for file in sorted(path.rglob("*.onnx")):
        yield str(file.relative_to(path)), file.read_bytes()


def main(arguments: list[str]) -> int:
    """Print the table, the disagreements and the rate; returns 4 when the pack allows what the validator refuses."""
    from rich.console import Console

    out: Any = Console(highlight=False, soft_wrap=True)
    with ValidatorSession(timeout=TIMEOUT, child=WORKER) as session:
        result = compare(folder(Path(arguments[0])) if arguments else node_tests(), session)
    for (static, answer), number in sorted(result.table.items()):
        out.print(f"{number:6}  pack {static:8} validator {answer}")
    for item in result.comparisons:
        if item.counts and not item.agrees:
            why = "; ".join(item.refused) if item.answer == "refused" else "; ".join(item.reasons[:3])
            out.print(f"{item.name}: pack {item.static}, validator {item.answer}: {why}", markup=False)
    rate = "no verdict" if result.rate is None else f"{100 * result.rate:.2f} %"
    out.print(f"agreement {rate} of {result.judged}; allowed but refused: {len(result.false_allowed)}")
    return 4 if result.false_allowed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
