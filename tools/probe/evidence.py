"""The answers of the validator to the probes, and the one file that keeps them.

The file is JSON with one fact table per line and one probe per line, sorted, so that two runs can be compared as
text. Equal fact tables are stored once and referred to by number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csa_deploy.errors import UsageError
from tools.probe.facts import Facts, with_ranks

EVIDENCE_FILE = Path(__file__).with_name("evidence.json")
VERDICTS = ("accepted", "refused")


@dataclass(frozen=True)
class Finding:
    """What the validator answered to one probe.

    Attributes:
        id: the probe's id.
        answer: as in :class:`~csa_deploy.restricted.validator.ValidatorVerdict`.
        layers: facts of the network (pseudo layer NETWORK) and of each of its layers; empty without a network.
        refused: position in ``layers`` -> names of the limits that do not hold.
    """

    id: str
    answer: str
    layers: tuple[Facts, ...] = ()
    refused: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_verdict(self) -> bool:
        """Whether the validator judged the network at all."""
        return self.answer in VERDICTS


@dataclass(frozen=True)
class Evidence:
    """All findings of one version of the validator.

    Attributes:
        version: version of TensorRT-RTX.
        compute_capability: target of the builds.
        findings: in the order of the plan.
    """

    version: str
    compute_capability: str
    findings: tuple[Finding, ...]

    def dumps(self) -> str:
        """Return the file's text."""
        numbers: dict[str, int] = {}
        rows = []
        for finding in self.findings:
            texts = [json.dumps(facts, sort_keys=True, separators=(",", ":")) for facts in finding.layers]
            references = [numbers.setdefault(text, len(numbers)) for text in texts]
            refused = {str(place): list(limits) for place, limits in sorted(finding.refused.items())}
            rows.append([finding.id, finding.answer, references, refused][: 4 if refused else 3])
        lines = ",\n".join(numbers)
        probes = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        head = f'"version":"{self.version}","compute_capability":"{self.compute_capability}"'
        return f'{{{head},\n"facts":[\n{lines}\n],\n"probes":[\n{probes}\n]}}\n'


def load(path: Path = EVIDENCE_FILE) -> Evidence:
    """Read the evidence, with ranks and numbers of tensors added to the facts.

    Raises:
        UsageError: the file is missing or not an evidence file.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        facts = [with_ranks(item) for item in data["facts"]]
        findings = tuple(_finding(row, facts) for row in data["probes"])
        return Evidence(data["version"], data["compute_capability"], findings)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(
            f"no usable evidence of probes in {path.name}: {error}", fix="run python -m tools.probe"
        ) from error


def _finding(row: list[Any], facts: list[Facts]) -> Finding:
    refused = {int(place): tuple(limits) for place, limits in row[3].items()} if len(row) > 3 else {}
    return Finding(row[0], row[1], tuple(facts[number] for number in row[2]), refused)
