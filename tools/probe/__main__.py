"""``python -m tools.probe``: probe NVIDIA's validator, write the evidence and the pack.

With ``--check`` nothing is written: the probes run again (all, or a sample of them) and must give the committed
answers, and the committed pack must be the one that follows from the committed evidence.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from csa_deploy.errors import BuildFailedError, CsaDeployError, OperationRejectedError
from csa_deploy.restricted.validator import ValidatorSession
from tools.probe import evidence as kept_evidence
from tools.probe import pack, run
from tools.probe.derive import DerivationError, derive
from tools.probe.evidence import Evidence
from tools.probe.probe import Probe


def main(arguments: list[str] | None = None) -> int:
    """Run the probing program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.probe", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("--sample", type=int, default=0, help="with --check: number of probes (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="with --sample: choice of the probes (default: 0)")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            number = check(options.sample, options.seed)
            done = f"{number} probes answered as committed; the pack follows from the evidence"
        else:
            found = write()
            done = f"{len(found.findings)} probes, {sum(item.has_verdict for item in found.findings)} with a verdict"
        Console().print(done, highlight=False)
    except CsaDeployError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        return error.exit_code
    return 0


def write(evidence_file: Path = kept_evidence.EVIDENCE_FILE, pack_file: Path = pack.PACK_FILE) -> Evidence:
    """Run every probe and write both files; a killed run goes on where it stopped."""
    partial = evidence_file.with_suffix(".partial.jsonl")
    found = _ask(run.plan(), partial)
    _replace(evidence_file, found.dumps())
    # Read back, so that the pack depends on the file alone.
    _replace(pack_file, pack_text(kept_evidence.load(evidence_file)))
    partial.unlink(missing_ok=True)
    return found


def check(sample: int = 0, seed: int = 0) -> int:
    """Run probes again and compare; returns their number.

    Raises:
        OperationRejectedError: an answer differs from the committed one, or the pack from the evidence.
    """
    committed = kept_evidence.load()
    if pack_text(committed) != pack.PACK_FILE.read_text(encoding="utf-8"):
        raise OperationRejectedError(
            f"{pack.PACK_FILE.name} is not the pack that follows from the evidence",
            fix="run python -m tools.probe",
        )
    probes = run.plan()
    chosen = random.Random(seed).sample(probes, sample) if sample else probes
    before = {finding.id: finding for finding in committed.findings}
    for now in _ask(chosen, None).findings:
        old = before.get(now.id)
        if old is None or (old.answer, old.refused) != (now.answer, now.refused):
            raise OperationRejectedError(
                f"probe {now.id}: {now.answer} {now.refused or ''}, the evidence says {old and old.answer}",
                fix="run python -m tools.probe and look at the difference",
            )
    return len(chosen)


def pack_text(evidence: Evidence) -> str:
    """The pack that follows from evidence.

    Raises:
        BuildFailedError: the evidence does not settle the rules.
    """
    try:
        return pack.dumps(derive(evidence), evidence)
    except DerivationError as error:
        raise BuildFailedError(
            f"no pack follows from the evidence: {error}", fix="add probes or a candidate"
        ) from error


def _ask(probes: list[Probe], partial: Path | None) -> Evidence:
    with (
        ValidatorSession(timeout=run.TIMEOUT, child=run.WORKER) as session,
        Progress(console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task("probes", total=len(probes))
        return run.ask(probes, session, kept=partial, progress=lambda done, total: bar.update(task, completed=done))


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())
