"""From cells and known facts to changes between versions, and to what may be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from csa_deploy.errors import badness
from csa_deploy.profile.comparison import compare_samples
from csa_deploy.records.check import worst
from csa_deploy.records.errata import SEVERITIES, Severity
from csa_deploy.records.matrix import Cell, KnownOfVersion, Upgrade, VersionChange, version_words

SHIFT_DB = 0.5  # of the signal-to-noise ratio, from which on a change is named
_SHARE = 0.005  # of the multiply-accumulates


def changes_of(
    asked: Sequence[str], cells: Sequence[Cell], known: Sequence[KnownOfVersion], minimum_effect: float
) -> tuple[VersionChange, ...]:
    """What differs between neighbouring versions, in the order of the command."""
    return tuple(
        change
        for before, after in pairwise(asked)
        for change in (
            *_facts(before, after, known),
            *(
                change
                for first in _of(cells, before)
                for second in _of(cells, after)
                if first.precision == second.precision
                for change in _cells(first, second, minimum_effect)
            ),
        )
    )


def _of(cells: Sequence[Cell], version: str) -> list[Cell]:
    return [cell for cell in cells if cell.tensorrt == version and cell.state in ("measured", "failed")]


def _facts(before: str, after: str, known: Sequence[KnownOfVersion]) -> Iterator[VersionChange]:
    """Known problems that come and go, and scopes whose verdict differs, by platform."""
    for new in (k for k in known if k.tensorrt == after):
        old = next((k for k in known if k.tensorrt == before and k.platform == new.platform), None)
        if old is None:
            continue
        where = new.platform or "any platform"
        had, has = ({problem.id for problem in k.problems} for k in (old, new))
        if came := sorted(has - had):
            yield VersionChange(before, after, where, "known problems", f"new: {', '.join(came)}", worse=True)
        if gone := sorted(had - has):
            yield VersionChange(before, after, where, "known problems", f"gone: {', '.join(gone)}", worse=False)
        if old.scopes and new.scopes and old.verdict != new.verdict:
            said = [f"{k.verdict} by {', '.join(s.scope for s in k.scopes)}" for k in (old, new)]
            worse = worst({old.verdict, new.verdict}) == new.verdict
            yield VersionChange(before, after, where, "scopes", " -> ".join(said), worse)


def _cells(first: Cell, second: Cell, minimum_effect: float) -> Iterator[VersionChange]:
    where = (
        first.precision if first.target == second.target else f"{first.precision}, {first.target} -> {second.target}"
    )
    pair = first.tensorrt, second.tensorrt, where
    built = [cell.engine_mib is not None for cell in (first, second)]
    if built[0] != built[1]:
        failed = first if built[1] else second
        yield VersionChange(
            *pair, "build", f"{'does not build' if built[0] else 'builds now'}: {failed.reason}", built[0]
        )
    had, has = (cell.obtained.share if cell.obtained else None for cell in (first, second))
    if had is not None and has is not None and abs(had - has) >= _SHARE:
        said = f"{100 * had:.1f} % -> {100 * has:.1f} % of the multiply-accumulates"
        yield VersionChange(*pair, "obtained precision", said, has < had)
    yield from _accuracy(first, second, pair)
    yield from _latency(first, second, pair, minimum_effect)


def _accuracy(first: Cell, second: Cell, pair: tuple[str, str, str]) -> Iterator[VersionChange]:
    old, new = first.accuracy, second.accuracy
    if old is None or new is None or old.tensors_sha256 != new.tensors_sha256:
        return  # not measured, or on other samples
    ratios = [accuracy.metrics.get("snr_db") for accuracy in (old, new)]
    said = [] if old.verdict == new.verdict else [f"{old.verdict} -> {new.verdict}"]
    fell = 0.0
    if ratios[0] is not None and ratios[1] is not None:
        fell = ratios[0] - ratios[1] if ratios[0] != ratios[1] else 0.0  # both may be infinite
        said += [f"signal/noise {ratios[0]:.1f} -> {ratios[1]:.1f} dB"] if abs(fell) >= SHIFT_DB else []
    if said:
        worse = new.verdict == "fail" != old.verdict or fell >= SHIFT_DB
        yield VersionChange(*pair, "accuracy", ", ".join(said), worse)


def _latency(first: Cell, second: Cell, pair: tuple[str, str, str], minimum_effect: float) -> Iterator[VersionChange]:
    if first.latency is None or second.latency is None or first.machine != second.machine:
        return
    ratio = compare_samples(first.latency.samples_ms, second.latency.samples_ms, minimum_effect=minimum_effect)
    if ratio is not None and ratio.outcome != "no difference shown":
        said = f"median {ratio.a_ms:.3g} -> {ratio.b_ms:.3g} ms, {ratio.outcome}: {100 * (ratio.ratio - 1):+.1f} %"
        yield VersionChange(*pair, "latency", said, ratio.outcome == "slower")


def upgrades_of(
    asked: Sequence[str],
    cells: Sequence[Cell],
    known: Sequence[KnownOfVersion],
    changes: Sequence[VersionChange],
    *,
    fail_on: Severity | None = None,
) -> tuple[Upgrade, ...]:
    """Whether each version may be used.

    ``no`` where something speaks against it: a cell failed, a scope that decides denies, a known problem of the
    severity that was asked for, or an inference slower than with the version before on the same machine. ``yes`` where
    every precision was built, passed its budget and was timed on one target at least. ``unknown`` otherwise.
    """
    return tuple(_upgrade(version, cells, known, changes, fail_on) for version in asked)


def _upgrade(
    version: str,
    cells: Sequence[Cell],
    known: Sequence[KnownOfVersion],
    changes: Sequence[VersionChange],
    fail_on: Severity | None,
) -> Upgrade:
    own = [cell for cell in cells if cell.tensorrt == version]
    against = sorted(_against(version, own, known, changes, fail_on), key=lambda found: badness(found[0]))
    if against:
        return Upgrade(version, "no", tuple(reason for _, reason in against), against[0][0])
    doubts = list(_doubts(version, own))
    return Upgrade(version, "unknown" if doubts else "yes", tuple(doubts))


def _against(
    version: str,
    own: Sequence[Cell],
    known: Sequence[KnownOfVersion],
    changes: Sequence[VersionChange],
    fail_on: Severity | None,
) -> Iterator[tuple[int, str]]:
    """What speaks against a version, each with the exit code that stands for it."""
    for facts in (k for k in known if k.tensorrt == version):
        if facts.denied:
            yield 4, f"denied by {', '.join(facts.denied)}"
        bad = [p.id for p in facts.problems if fail_on and SEVERITIES.index(p.severity) <= SEVERITIES.index(fail_on)]
        if bad:
            yield 4, f"known problems: {', '.join(bad)}"
    for cell in own:
        if cell.state == "failed":
            yield cell.exit_code, f"{cell.precision} on {cell.target}: {cell.reason}"
    for change in changes:
        if change.after == version and change.what == "latency" and change.worse:
            yield 7, f"{change.where}: {change.said}"


def _doubts(version: str, own: Sequence[Cell]) -> Iterator[str]:
    """What is not known of a version; nothing where each precision was measured throughout on some target."""
    for precision in dict.fromkeys(cell.precision for cell in own):
        here = [cell for cell in own if cell.precision == precision]
        there = [cell for cell in here if cell.state != "not there"]
        if not there:
            reasons = "; ".join(dict.fromkeys(cell.reason for cell in here))
            yield f"{precision}: no target has {version_words(version)}: {reasons}"
        yield from (f"{precision} on {cell.target}: {doubt}" for cell in there for doubt in _open_of(cell))


def _open_of(cell: Cell) -> Iterator[str]:
    if cell.state == "not measured":
        yield f"not measured: {cell.reason}"
        return
    reasons = {item.what: item.reason for item in cell.not_measured}
    if cell.accuracy is None:
        yield f"accuracy not measured: {reasons.get('accuracy', '')}"
    elif cell.accuracy.verdict != "pass":
        yield f"accuracy {cell.accuracy.verdict}: {cell.accuracy.decided_by}"
    if cell.latency is None:
        yield f"latency not measured: {reasons.get('latency', '')}"
    yield from (f"{what} {reason}" for what, reason in reasons.items() if what.startswith("limit of "))


def exit_of(upgrades: Sequence[Upgrade], *, strict: bool) -> tuple[int, str]:
    """The exit code of the worst version that may not be used, and why; with ``strict`` of one that is not known."""
    refused = [upgrade for upgrade in upgrades if upgrade.verdict == "no"]
    if refused:
        worst_one = min(refused, key=lambda upgrade: badness(upgrade.exit_code))
        return worst_one.exit_code, f"{version_words(worst_one.tensorrt)} may not be used: {worst_one.reasons[0]}"
    open_ = next((upgrade for upgrade in upgrades if upgrade.verdict == "unknown"), None)
    if strict and open_ is not None:
        return 3, f"{version_words(open_.tensorrt)} is not known to be usable: {open_.reasons[0]}"
    return 0, ""
