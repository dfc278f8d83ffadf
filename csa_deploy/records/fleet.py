"""What a fleet states: the matrix of every network, and the exit code of the worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.errors import badness
from csa_deploy.records.matrix import Cell, MatrixReport, version_words
from csa_deploy.results import Stored


@dataclass(frozen=True)
class FleetReport(Stored):
    """The fleet.

    Attributes:
        folders: of each network its folder inside the fleet's.
        networks: their matrices, in the order of the file.
        finished: False where the run was interrupted.
    """

    derived: ClassVar[tuple[str, ...]] = ("schema_version", "summary", "exit_code")
    schema_version: ClassVar[int] = 1
    folders: tuple[str, ...]
    networks: tuple[MatrixReport, ...]
    finished: bool = True

    @property
    def cells(self) -> list[tuple[MatrixReport, Cell]]:
        """All, each with its network's matrix."""
        return [(network, cell) for network in self.networks for cell in network.cells]

    @property
    def summary(self) -> str:
        """``10 of 12 cells measured, 2 failed``."""
        states = [cell.state for _, cell in self.cells]
        return f"{states.count('measured')} of {len(states)} cells measured, {states.count('failed')} failed"

    @property
    def unmeasured(self) -> list[str]:
        """Precisions that were measured on a target in no version, each with the reason: such a target is not served.

        A target that has one of several versions is.
        """
        found: dict[tuple[str, str, str], list[Cell]] = {}
        for network, cell in self.cells:
            found.setdefault((network.network, cell.precision, cell.target), []).append(cell)
        return [
            f"{network}, {cells[0].where}: {cells[0].reason}"
            for (network, _, _), cells in found.items()
            if all(cell.state in ("not there", "not measured") for cell in cells)
        ]

    @property
    def exit_code(self) -> int:
        """Of the worst cell or version; 0 where nothing failed."""
        return self._against[0][0] if self._against else 0

    @property
    def worst(self) -> str:
        """What :attr:`exit_code` is of, in a line; empty where nothing failed."""
        return self._against[0][1] if self._against else ""

    @property
    def _against(self) -> list[tuple[int, str]]:
        """What speaks against cells and versions, the worst first: its exit code, and what it is."""
        found = [(c.exit_code, f"{n.network}, {c.where}: {c.reason}") for n, c in self.cells if c.state == "failed"]
        found += [
            (upgrade.exit_code, f"{n.network}, {version_words(upgrade.tensorrt)}: {upgrade.reasons[0]}")
            for n in self.networks
            for upgrade in n.upgrades
            if upgrade.verdict == "no"
        ]
        return sorted(found, key=lambda item: badness(item[0]))
