"""Runs the cells of a matrix one after another, each in a workspace of its own, and keeps what came out after each."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.context import Context
from csa_deploy.errors import EXIT_INTERNAL, CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.export.opsets import exported_opset, wish_for
from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.load import load_model
from csa_deploy.matrix.facts import known_of
from csa_deploy.matrix.judging import changes_of, upgrades_of
from csa_deploy.matrix.plan import Reached, Spot, oldest, reach
from csa_deploy.pipeline import Observer, Silent, run_stages
from csa_deploy.profile.gates import failure
from csa_deploy.profile.loadgen.run import LoadgenFound
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.matrix import Cell, CellAccuracy, CellLatency, KnownOfVersion, MatrixReport
from csa_deploy.records.profile import Profiled, ProfileRecord
from csa_deploy.records.verify import JudgedCandidate, VerifyRecord
from csa_deploy.results import NotMeasured
from csa_deploy.source import load_source
from csa_deploy.stages import STAGES
from csa_deploy.workspace import Workspace, dump_json, key_of, sha256_of, write_atomic

if TYPE_CHECKING:
    from csa_deploy.config import Config

MATRIX = "matrix.json"
_STAGES = ("build", "verify", "profile")
_OF_CELL = ("precision", "target", "backend", "tensorrt")
_LOG = logging.getLogger(__name__)

Begun = Callable[[str], None]
"""Called with what begins: the graphs, or a cell in words."""


class Matrix:
    """One network over versions and targets.

    Args:
        config: settings of every cell; its ``tensorrt`` and ``target`` are the cells'.
        asked: versions in the order of the command.
        spots: versions on places.
        observer: of the stages.
        begun: see :data:`Begun`.
    """

    def __init__(
        self,
        config: Config,
        asked: Sequence[str],
        spots: Sequence[Spot],
        root: Path,
        observer: Observer | None = None,
        begun: Begun = lambda what: None,
    ) -> None:
        if config.split:
            raise UsageError("a matrix is of whole networks", fix="leave out --split, or extract the part first")
        config = config.model_copy(update={"tensorrt": oldest(asked), "target": None})
        self.config = config.model_copy(update={"opset": _one_opset(config)})
        self.asked, self.spots, self.root = tuple(asked), tuple(spots), root
        self.observer, self.begun = observer or Silent(), begun
        self.earlier = {cell.key: cell for cell in stored_cells(root)}
        self.cells: list[Cell] = []
        self._answers: dict[str, Reached] = {}
        self.known: tuple[KnownOfVersion, ...] = ()
        self.graphs: dict[str, str] = {}

    def run(self) -> MatrixReport:
        """Run what is reachable; a cell that fails stops no other.

        Raises:
            CsaDeployError: the graphs cannot be made.
        """
        try:
            self.make_graphs()
            for spot, precision in self.planned:
                self.take(self.cell(spot, precision))
        except KeyboardInterrupt:
            self.store(finished=False)
            raise
        return self.store(finished=True)

    @property
    def planned(self) -> list[tuple[Spot, str]]:
        """The cells, in the order of the command."""
        return [(spot, precision) for spot in self.spots for precision in self.config.precision]

    def take(self, cell: Cell) -> None:
        """Note what came of a cell."""
        self.cells.append(cell)
        self.store(finished=False)

    def fail(self, reason: str, exit_code: int) -> None:
        """Note that nothing can be made of the network, for a reason that all cells share."""
        plain = (self._plain(spot, precision) for spot, precision in self.planned)
        self.cells = [replace(cell, state="failed", reason=reason, exit_code=exit_code) for cell in plain]
        self.store(finished=True)

    def lost(self, spot: Spot, precision: str, reason: str, exit_code: int) -> Cell:
        """A cell whose process ended without an answer."""
        return replace(self._plain(spot, precision), state="failed", reason=reason, exit_code=exit_code)

    def report(self, *, finished: bool) -> MatrixReport:
        """All that is known by now."""
        changes = changes_of(self.asked, self.cells, self.known, self.config.max_slowdown)
        done = {(cell.tensorrt, cell.target, cell.precision): cell for cell in self.cells}
        cells = tuple(
            done.get((spot.tensorrt, spot.place.name, precision))
            or self._without(self._plain(spot, precision), "interrupted before it began")
            for spot, precision in self.planned
        )
        return MatrixReport(
            network=self.config.network,
            graphs=self.graphs,
            versions=self.asked,
            targets=tuple(dict.fromkeys(spot.place.name for spot in self.spots)),
            known=self.known,
            cells=cells,
            changes=changes,
            upgrades=upgrades_of(self.asked, cells, self.known, changes, fail_on=self.config.fail_on),
            finished=finished,
        )

    def store(self, *, finished: bool) -> MatrixReport:
        """Write what is known by now."""
        report = self.report(finished=finished)
        write_atomic(self.root / MATRIX, dump_json(report.to_json()))
        return report

    def make_graphs(self) -> None:
        """One export for every cell, and a workspace with the graph of each precision."""
        first = self._graphs_of(self.config.precision[0])
        for number, precision in enumerate(self.config.precision):
            self.begun(f"graph in {precision}")
            root = _copied(first, self._graphs_of(precision)) if number else first
            with self.opened(root, {"precision": (precision,)}) as context:
                run_stages(["precision"], context, self.observer)
                for stage in _STAGES[1:]:  # what they refuse is no matter of the place: no cell could be measured
                    STAGES[stage].functions().preflight(context)
                self.graphs[precision] = sha256_of(context.path(context.graphs()[precision]))
                if not number:
                    self.known = known_of(context.path(context.graphs()["fp32"]), self.spots, self.config)

    def _graphs_of(self, precision: str) -> Path:
        return self.root / "graphs" / precision

    def _plain(self, spot: Spot, precision: str) -> Cell:
        """A cell of which nothing is known yet."""
        target = spot.place.target.to_json() if spot.place.target else None
        settings = {name: value for name, value in self.config.to_json().items() if name not in _OF_CELL}
        graph = self.graphs.get(precision)
        key = key_of({"spot": spot.folder, "target": target, "graph": graph, "settings": settings})
        root = self.root / spot.folder / precision
        where = spot.tensorrt, spot.place.name, precision
        return Cell(*where, "not measured", machine=spot.place.host, workspace=str(root), key=key)

    def _without(self, plain: Cell, reason: str) -> Cell:
        """A cell that cannot be measured now: as it was measured earlier, of the same graph and settings."""
        earlier = self.earlier.get(plain.key)
        if earlier is not None and earlier.state in ("measured", "failed"):
            return replace(earlier, note=f"measured earlier; now: {reason}")
        return replace(plain, reason=reason)

    def cell(self, spot: Spot, precision: str) -> Cell:
        """What comes of a cell, also of one that fails."""
        plain = self._plain(spot, precision)
        self.begun(plain.where)
        try:
            reached = self._reached(spot)
            if not reached.there:
                return replace(plain, state="not there", reason=reached.reason)
            if reached.reason:
                return self._without(plain, reached.reason)
            root = _copied(self._graphs_of(precision), Path(plain.workspace))
            with self.opened(root, {**reached.settings, "precision": (precision,)}) as context:
                run_stages(_STAGES, context, self.observer)
                return _measured(plain, context)
        except EnvironmentLacksError as error:
            return self._without(plain, error.message)
        except CsaDeployError as error:
            return replace(plain, state="failed", reason=error.message, exit_code=error.exit_code)
        except Exception as error:  # a defect in one cell is no reason to lose the others
            _LOG.debug("traceback of a cell", exc_info=error)
            return replace(plain, state="failed", reason=f"internal error: {error!r}", exit_code=EXIT_INTERNAL)

    def _reached(self, spot: Spot) -> Reached:
        if spot.folder not in self._answers:
            self._answers[spot.folder] = reach(spot)
        return self._answers[spot.folder]

    @contextmanager
    def opened(self, root: Path, settings: dict[str, Any]) -> Iterator[Context]:
        """A workspace of the matrix, locked."""
        config = self.config.model_copy(update=settings)
        workspace = Workspace(root)
        with workspace.locked():
            yield Context(config, load_source(config.network), workspace)


def _copied(source: Path, root: Path) -> Path:
    """A workspace that begins as a copy of another, where it is not there yet; whole or not at all."""
    if not root.exists():
        scratch = root.with_name(f".{root.name}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(source, scratch)
        scratch.rename(root)
    return root


def _one_opset(config: Config) -> int:
    """The opset of the one graph that all cells build: what the oldest version takes."""
    if load_source(config.network).kind != "onnx":
        return exported_opset(config)
    own = opset_of(load_model(Path(config.network), full_check=False))
    wish = wish_for(own, config)
    return wish.opset if wish else own


def stored_cells(root: Path) -> tuple[Cell, ...]:
    """Cells of an earlier run in this folder; none where there was none, or what it wrote cannot be read."""
    try:
        return MatrixReport.from_json(json.loads((root / MATRIX).read_text(encoding="utf-8"))).cells
    except (OSError, ValueError, UsageError, RecursionError):
        return ()


def _measured(plain: Cell, context: Context) -> Cell:
    """A cell whose engine was built, from the records of its workspace."""
    workspace, precision = context.workspace, plain.precision
    engine, verified = workspace.read(BuildRecord).engines[precision], workspace.read(VerifyRecord)
    built = workspace.measured("build")["engines"][precision]
    profiled = Profiled.from_json(workspace.measured("profile"))
    accuracy, no_accuracy = _accuracy(verified, f"engine {precision}")
    latency, no_latency = _latency(workspace, f"engine {precision}")
    gaps = [NotMeasured(what, why) for what, why in (("accuracy", no_accuracy), ("latency", no_latency)) if why]
    if engine.obtained is None or engine.obtained.share is None:
        gaps.append(NotMeasured("obtained precision", engine.obtained.reason if engine.obtained else "not stated"))
    gaps += [
        NotMeasured(f"limit of {gate.label} {gate.quantity}", f"{gate.verdict}: {gate.reason}")
        for gate in profiled.gates
        if gate.verdict not in ("pass", "fail") and precision in gate.label.split()  # a cell has one precision
    ]
    gpu = str(engine.machine.get("gpu", "")) or ", ".join(engine.compute_capabilities)
    cell = replace(
        plain,
        state="measured",
        version=engine.version,
        machine=f"{plain.machine}: {gpu}",
        engine_mib=engine.engine_mib,
        build_seconds=built.get("build_seconds"),
        obtained=engine.obtained,
        accuracy=accuracy,
        latency=latency,
        not_measured=tuple(gaps),
    )
    if inaccurate := _inaccurate(verified, precision):
        return replace(cell, state="failed", reason=f"accuracy: {inaccurate}", exit_code=6)
    if slow := failure(list(profiled.gates)) or LoadgenFound(list(profiled.loadgen)).failure():
        return replace(cell, state="failed", reason=slow.message, exit_code=slow.exit_code)
    return cell


def _inaccurate(record: VerifyRecord, precision: str) -> str:
    """Why a comparison fails a cell: its engine, another candidate or the reference itself; empty where none does.

    Where the engine was compared, it counts in place of the graph of its precision: TensorRT 8 makes FP16 by itself.
    """
    verdicts = {candidate.label: candidate for candidate in record.candidates}
    engine = verdicts.get(f"engine {precision}")
    if engine is not None:
        verdicts.pop(precision, None)
        if engine.verdict == "fail":
            return _decided(engine) or "values that are not finite, or another preprocessing"
    if broken := next((found for found in verdicts.values() if found.verdict == "fail"), None):
        return f"{broken.label}: {_decided(broken)}"
    return record.accuracy.statement if record.accuracy and record.accuracy.verdict == "fail" else ""


def _decided(found: JudgedCandidate) -> str:
    """What a verdict rests on, of a bound also what is asked: ``snr_db 31.2 dB, at least 40.0 dB is asked``."""
    held = [check for check in found.checks if check.state == found.verdict != "pass"]
    check = next((check for check in held if found.decided_by.startswith(f"{check.metric} ")), None)
    if check is None:
        return found.decided_by
    return f"{found.decided_by}, {check.limit_in_words} is asked{f': {check.reason}' if check.reason else ''}"


def _accuracy(record: VerifyRecord, label: str) -> tuple[CellAccuracy | None, str]:
    """The engine's part of a comparison, or why it has none."""
    found = next((candidate for candidate in record.candidates if candidate.label == label), None)
    if found is None:
        reason = next((item.reason for item in record.not_measured if item.what == label), "it was not compared")
        return None, reason
    verdict = CellAccuracy(found.verdict, _decided(found), found.metrics, record.data.samples, found.tensors_sha256)
    return verdict, ""


def _latency(workspace: Workspace, label: str) -> tuple[CellLatency | None, str]:
    """The engine's series, or why there is none."""
    found = workspace.measured("profile")["latency"].get(label)
    if found is None:
        record = workspace.read(ProfileRecord)
        reason = next((item.reason for item in record.not_measured if item.what.startswith(label)), "it was not timed")
        return None, reason
    percentiles = found["percentiles_ms"]
    interval = found["intervals_ms"]["50"]
    timed = CellLatency(
        percentiles["50"], percentiles["99"], tuple(interval) if interval else None, tuple(found["samples_ms"])
    )
    return timed, ""
