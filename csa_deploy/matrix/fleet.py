"""Networks x precisions x targets as one job on a cluster: a matrix per network, its cells wherever a worker is free.

A matrix keeps what came of each cell and goes on where it was, so a fleet does as well. A board, or a machine that
several target files name, has one cell at a time: this process sends the next one when the last has ended, and the cell
holds a lock of the cluster's that other fleets wait for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.cluster.connection import connected
from csa_deploy.cluster.worker import inside
from csa_deploy.config import make_config, normalise
from csa_deploy.errors import EXIT_INTERNAL, CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.matrix.plan import HERE, Place, Spot, parse_places, parse_versions, spots_of
from csa_deploy.matrix.run import Matrix
from csa_deploy.pipeline import run_stages
from csa_deploy.records.fleet import FleetReport
from csa_deploy.records.matrix import Cell, KnownOfVersion
from csa_deploy.source import slug_of
from csa_deploy.validation import read_mapping
from csa_deploy.workspace import MANIFEST, dump_json, write_atomic

if TYPE_CHECKING:
    from distributed import Client, Future

FLEET = "fleet.json"
_EXAMPLE = "write lines such as 'networks: [a.onnx, b.onnx]' and 'targets: [orin.yaml]'"
_OF_FLEET = ("cluster", "strict", "target", "tensorrt", "workspace")
"""Settings that are of the whole fleet; ``targets`` stands for ``target``."""
_LOG = logging.getLogger(__name__)

Told = Callable[[str], None]
"""Called with what begins and ends, in words."""


@dataclass(frozen=True)
class FleetPlan:
    """What a fleet consists of.

    Attributes:
        matrices: of every network.
        root: folder of the results, one folder a network.
        cluster: where its cells run.
        strict: whether what is not known fails.
    """

    matrices: tuple[Matrix, ...]
    root: Path
    cluster: str
    strict: bool

    def report(self, *, finished: bool) -> FleetReport:
        """All that is known by now; written to the folder."""
        folders = tuple(matrix.root.name for matrix in self.matrices)
        found = FleetReport(folders, tuple(m.report(finished=finished) for m in self.matrices), finished)
        write_atomic(self.root / FLEET, dump_json(found.to_json()))
        return found


def read_fleet(path: Path, given: dict[str, Any], root: Path) -> FleetPlan:
    """A fleet's file: ``networks``, ``targets``, ``tensorrt`` and settings, which a network's own mapping may change.

    Args:
        path: the file.
        given: settings of the command line, which win.
        root: folder of the results, where neither says another.

    Raises:
        UsageError: the file is none, a key or value in it is wrong, or two networks have one name.
    """
    said = read_mapping(path, "fleet", example=_EXAMPLE)
    networks, targets, versions = (said.pop(key, None) for key in ("networks", "targets", "tensorrt"))
    if not isinstance(networks, list) or not networks:
        raise UsageError(f"{path}: names no networks", fix=_EXAMPLE)
    common = {**normalise(said, str(path)), **given}
    _refuse(path, common, ("network", "target"), "a fleet has networks and targets", "write networks: or targets:")
    if not isinstance(targets, list | None):
        raise UsageError(f"{path}: targets: {targets} is no list", fix=_EXAMPLE)
    spots = _spots(path, parse_places([str(target) for target in targets or ()]), versions)
    folder = Path(str(common.pop("workspace", root))).absolute()
    cluster = str(common.pop("cluster", None) or "local")
    matrices: list[Matrix] = []
    for network in networks:
        own = normalise(network if isinstance(network, dict) else {"network": network}, str(path))
        if not isinstance(own.get("network"), str):
            raise UsageError(f"{path}: an entry of networks names no network", fix="write network: NAME in it")
        _refuse(path, own, _OF_FLEET, f"a setting of the fleet, not of {own['network']} alone", "write it above")
        config = make_config({**common, **own})
        name = slug_of(config.network)
        if any(matrix.root.name == name for matrix in matrices):
            raise UsageError(f"{path}: two networks are called {name}", fix="rename one: results go by that name")
        asked = tuple(dict.fromkeys(spot.tensorrt for spot in spots))
        matrices.append(Matrix(config, asked, spots, folder / name))
    return FleetPlan(tuple(matrices), folder, cluster, matrices[0].config.strict)


def _refuse(path: Path, settings: dict[str, Any], keys: Sequence[str], why: str, fix: str) -> None:
    """Refuse keys that would count for nothing."""
    if wrong := next((key for key in keys if key in settings), None):
        raise UsageError(f"{path}: {wrong}: {settings[wrong]}: {why}", fix=fix)


def _spots(path: Path, places: tuple[Place, ...], versions: Any) -> tuple[Spot, ...]:
    """Every version on every target; without versions each target with the one that its file states."""
    if versions is not None:
        given = versions if isinstance(versions, list) else [versions]
        if not given:
            raise UsageError(f"{path}: tensorrt: names no version", fix="write tensorrt: ['10.10'], or leave it out")
        if any(isinstance(version, float) for version in given):
            raise UsageError(
                f"{path}: tensorrt: {given} holds a number, as which YAML reads 10.10 as 10.1", fix="put it in quotes"
            )
        return spots_of(parse_versions([str(version) for version in given]), places)
    for place in places:
        if place.target is None or place.target.tensorrt is None:
            said = f"{place.file} states no TensorRT version" if place.file else f"{HERE} is the only target"
            raise UsageError(f"{path}: {said}", fix="write tensorrt: ['10.10'] in the fleet's file")
    return tuple(Spot(str(place.target.tensorrt), place) for place in places if place.target)


@dataclass
class Fleet:
    """A fleet that runs.

    Attributes:
        plan: of it.
        told: see :data:`Told`.
    """

    plan: FleetPlan
    told: Told = lambda said: None
    _waiting: dict[str, deque[tuple[Matrix, Spot, str]]] = field(default_factory=dict)
    _running: dict[Future, tuple[Matrix, Spot | None, str]] = field(default_factory=dict)

    def run(self) -> FleetReport:
        """Run all cells; one that fails stops no other. What is done stays whatever ends this.

        Raises:
            EnvironmentLacksError: there is no such cluster, or a worker does not fit.
        """
        from distributed import as_completed

        with connected(self.plan.cluster) as client:
            try:
                for matrix in self.plan.matrices:
                    self.told(f"{matrix.config.network}: graphs")
                    future = client.submit(_graphs, matrix, str(Path.cwd()), pure=False)
                    self._running[future] = matrix, None, ""
                ended = as_completed(list(self._running))
                for future in ended:
                    for more in self._ended(client, future):
                        ended.add(more)
            finally:
                client.cancel(list(self._running), force=True)
                self.plan.report(finished=False)
        for matrix in self.plan.matrices:
            matrix.store(finished=True)
        return self.plan.report(finished=True)

    def _ended(self, client: Client, future: Future) -> list[Future]:
        """Note what came of a task; the tasks that can begin now."""
        if future.status == "cancelled" or client.status != "running":
            raise EnvironmentLacksError("the scheduler is gone", fix="run the same command again: it goes on")
        if future.status not in ("finished", "error"):  # its worker died before the result was fetched
            return [future]
        matrix, spot, precision = self._running.pop(future)
        error = future.exception() if future.status == "error" else None
        code = error.exit_code if isinstance(error, CsaDeployError) else EXIT_INTERNAL
        if spot is None:
            if error is not None:
                self.told(f"{matrix.config.network}: failed: {_said(error)}")
                matrix.fail(_said(error), code)
                return []
            matrix.graphs, matrix.known = future.result()
            for place, wanted in matrix.planned:
                self._waiting.setdefault(place.place.host, deque()).append((matrix, place, wanted))
            return self._begin(client)
        cell = future.result() if error is None else matrix.lost(spot, precision, _said(error), code)
        self.told(f"{matrix.config.network}, {cell.where}: {cell.state}{f': {cell.reason}' if cell.reason else ''}")
        matrix.take(cell)
        return self._begin(client)

    def _begin(self, client: Client) -> list[Future]:
        """Send a cell to every board that has none."""
        busy = {spot.place.host for _, spot, _ in self._running.values() if spot is not None}
        begun = []
        for host, waiting in self._waiting.items():
            if host in busy or not waiting:
                continue
            matrix, spot, precision = waiting.popleft()
            future = client.submit(_cell, matrix, spot, precision, str(Path.cwd()), pure=False)
            self._running[future] = matrix, spot, precision
            begun.append(future)
        return begun


def _graphs(matrix: Matrix, folder: str) -> tuple[dict[str, str], tuple[KnownOfVersion, ...]]:
    """In a worker: the graphs of a network, by precision, and what is known of it."""
    with inside(folder):
        matrix.make_graphs()
    return matrix.graphs, matrix.known


def _cell(matrix: Matrix, spot: Spot, precision: str, folder: str) -> Cell:
    """In a worker: a cell, while nobody else has its board, and its report."""
    from distributed import Lock, get_worker

    if not matrix.root.is_dir():
        raise EnvironmentLacksError(f"worker {get_worker().address} does not see {matrix.root}, where the results go")
    with Lock(f"csa-deploy: board {spot.place.host}"), inside(folder):
        cell = matrix.cell(spot, precision)
        root = Path(cell.workspace)
        with suppress(CsaDeployError):  # of a cell that failed early there may be nothing to report
            if (root / MANIFEST).is_file():
                with matrix.opened(root, {"precision": (precision,)}) as context:
                    run_stages(["report"], context)
    return cell


def _said(error: BaseException) -> str:
    if isinstance(error, CsaDeployError):
        return error.message
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
