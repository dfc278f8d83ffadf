"""What the machine says about itself, read outside the timed region, without root and without a service.

Sources: Linux ABI documents for cpufreq, thermal, hwmon and powercap in sysfs; NVML's API reference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from csa_deploy.profile import nvml
from csa_deploy.records.profile import Extent, Readings
from csa_deploy.results import NotMeasured

SYSTEM = Path("/")
# How often an energy counter moves: RAPL's every millisecond (Intel's SDM), NVML's every 20 to 100 ms by GPU.
COUNTER_PERIOD_S = {"powercap": 1e-3, "NVML": 0.1}
ENOUGH_PERIODS = 5


@dataclass(frozen=True)
class Snapshot:
    """One reading.

    Attributes:
        at: :func:`time.perf_counter`, seconds.
        values: quantity with its unit -> value, such as ``"temperature x86_pkg_temp [C]"``.
        energy_j: energy counters by rail, joules since an arbitrary start.
    """

    at: float
    values: dict[str, float | str]
    energy_j: dict[str, float]


@dataclass
class Telemetry:
    """Reads what exists and remembers it; :meth:`to_json` says what could not be read, and why.

    Args:
        root: root of the file system; tests give one of their own.
        device: reads the GPU, or says why it cannot.
    """

    root: Path = SYSTEM
    device: Callable[[], nvml.Reading] = nvml.read
    snapshots: list[Snapshot] = field(default_factory=list)

    def read(self) -> Snapshot:
        """Take a reading."""
        values: dict[str, float | str] = {}
        energy: dict[str, float] = {}
        for reader in (self._clocks, self._temperatures, self._hwmon_power, self._power_mode):
            values.update(reader())
        energy.update(self._powercap())
        gpu = self.device()
        values.update(gpu.values)
        energy.update(gpu.energy_j)
        values["load average 1 min"] = round(os.getloadavg()[0], 2)
        snapshot = Snapshot(time.perf_counter(), values, energy)
        self.snapshots.append(snapshot)
        return snapshot

    def readings(self) -> Readings:
        """Range of every quantity over all readings, settings, and what was not measured."""
        seen: dict[str, list[float | str]] = {}
        for snapshot in self.snapshots:
            for name, value in snapshot.values.items():
                seen.setdefault(name, []).append(value)
        return Readings(
            readings=len(self.snapshots),
            seen={name: _extent(values) for name, values in sorted(seen.items())},
            governor=tuple(self.governor()),
            not_measured=tuple(self.not_measured()),
        )

    def governor(self) -> list[str]:
        """Frequency governors of the CPU's cores, each once."""
        found = {_text(p) for p in self._glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
        return sorted(g for g in found if g)

    def not_measured(self) -> list[NotMeasured]:
        """Quantities that this machine does not show, each with the reason."""
        last = self.snapshots[-1] if self.snapshots else Snapshot(0.0, {}, {})
        lacking = {
            "CPU clock": (any(n.startswith("clock cpu") for n in last.values), "no cpufreq in sysfs"),
            "CPU governor": (bool(self.governor()), "no cpufreq in sysfs"),
            "temperature": (any(n.startswith("temperature") for n in last.values), "no thermal zone in sysfs"),
            "energy per inference": (bool(last.energy_j), "no readable energy counter (powercap, NVML) here"),
            "GPU clocks, power mode, throttle reasons": (
                any(n.startswith("gpu") for n in last.values),
                self.device().reason,
            ),
        }
        return [NotMeasured(what, reason) for what, (there, reason) in lacking.items() if not there]

    def _glob(self, pattern: str) -> Iterator[Path]:
        yield from sorted(self.root.glob(pattern))

    def _clocks(self) -> dict[str, float | str]:
        paths = self._glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
        clocks = [khz / 1e3 for path in paths if (khz := _number(path)) is not None]
        found: dict[str, float | str] = {}
        if clocks:
            found = {"clock cpu slowest [MHz]": min(clocks), "clock cpu fastest [MHz]": max(clocks)}
        for device in self._glob("sys/class/devfreq/*"):  # GPU, memory controller and accelerators of Tegra boards
            hertz = _number(device / "cur_freq")
            if hertz is not None:
                found[f"clock {device.name} [MHz]"] = hertz / 1e6
        return found

    def _power_mode(self) -> dict[str, float | str]:
        """What nvpmodel last set on a Jetson board, such as ``pmode:0002``."""
        mode = _text(self.root / "var/lib/nvpmodel/status").split()
        return {"power mode": mode[0]} if mode else {}

    def _temperatures(self) -> dict[str, float | str]:
        found: dict[str, float | str] = {}
        for zone in self._glob("sys/class/thermal/thermal_zone*"):
            value = _number(zone / "temp")
            if value is not None and value > 0:  # a sensor that is switched off reads 0 or less
                found[f"temperature {_text(zone / 'type') or zone.name} [C]"] = value / 1e3
        return found

    def _hwmon_power(self) -> dict[str, float | str]:
        """Power monitors such as the INA3221 of Jetson boards: rails with a name, in watts."""
        found: dict[str, float | str] = {}
        for label in self._glob("sys/class/hwmon/hwmon*/in*_label"):
            index, name = label.name[2:-6], _text(label)
            volts = _number(label.with_name(f"in{index}_input"))
            amperes = _number(label.with_name(f"curr{index}_input"))
            if name and volts is not None and amperes is not None:
                found[f"power rail {name} [W]"] = round(volts * amperes / 1e6, 3)
        return found

    def _powercap(self) -> dict[str, float]:
        found = {}
        for zone in self._glob("sys/class/powercap/*:*"):
            micro = _number(zone / "energy_uj")
            if micro is not None and zone.name.count(":") == 1:
                found[f"powercap {_text(zone / 'name') or zone.name}"] = micro / 1e6
        return found


@dataclass
class Meter:
    """Takes a reading before and after each block, and gives the energy in between to the network that ran.

    All that ran on a rail counts, the idle machine as well.
    """

    telemetry: Telemetry
    used_j: dict[str, dict[str, float]] = field(default_factory=dict)
    inferences: dict[str, int] = field(default_factory=dict)
    shortest_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def block(self, label: str, inferences_done: Callable[[], int]) -> Iterator[None]:
        """Around a block of inferences of one network."""
        before, done = self.telemetry.read(), inferences_done()
        yield
        after = self.telemetry.read()
        self.inferences[label] = self.inferences.get(label, 0) + inferences_done() - done
        self.shortest_s[label] = min(self.shortest_s.get(label, float("inf")), after.at - before.at)
        rails = self.used_j.setdefault(label, {})
        for rail, start in before.energy_j.items():
            rails[rail] = rails.get(rail, 0.0) + after.energy_j.get(rail, float("nan")) - start

    def per_inference(self) -> dict[str, dict[str, float]]:
        """Joules per inference by network and rail; without the counters of :meth:`not_measured`."""
        found: dict[str, dict[str, float]] = {}
        for label, rails in self.used_j.items():
            sound = {rail: joules for rail, joules in rails.items() if not self._fault(label, rail, joules)}
            found[label] = {rail: round(joules / self.inferences[label], 6) for rail, joules in sound.items()}
        return found

    def not_measured(self) -> list[NotMeasured]:
        """Counters that give no energy, by network, each with the reason."""
        return [
            NotMeasured(f"energy per inference of {label}, {rail}", reason)
            for label, rails in self.used_j.items()
            for rail, j in rails.items()
            if (reason := self._fault(label, rail, j))
        ]

    def _fault(self, label: str, rail: str, joules: float) -> str:
        period = COUNTER_PERIOD_S[rail.split()[0]]
        if self.shortest_s[label] < ENOUGH_PERIODS * period:
            return (
                f"blocks of {1e3 * self.shortest_s[label]:.0f} ms are too short for a counter that moves every "
                f"{1e3 * period:g} ms; give --seconds"
            )
        return "" if joules > 0 else "the counter wrapped, stood still or vanished"


def _extent(values: list[float | str]) -> Extent | tuple[str, ...]:
    numbers = [v for v in values if not isinstance(v, str)]
    if len(numbers) != len(values):
        return tuple(sorted({str(v) for v in values}))
    return Extent(min(numbers), max(numbers))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
