"""Telemetry from a made-up sysfs, and from this machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from csa_deploy.profile import nvml
from csa_deploy.profile.telemetry import Meter, Telemetry
from csa_deploy.results import jsonable

LONG_ENOUGH = 0.01  # seconds; a powercap counter moves every millisecond


def no_gpu() -> nvml.Reading:
    return nvml.Reading(reason="no GPU in this test")


@pytest.fixture()
def board(tmp_path: Path) -> Path:
    """A board with two cores, a thermal zone, an INA3221 rail and an energy counter."""
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2000000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/class/thermal/thermal_zone0/type": "GPU-therm",
        "sys/class/thermal/thermal_zone0/temp": "48500",
        "sys/class/thermal/thermal_zone1/type": "off",
        "sys/class/thermal/thermal_zone1/temp": "-256000",
        "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
        "sys/class/hwmon/hwmon3/in1_input": "5000",
        "sys/class/hwmon/hwmon3/curr1_input": "2400",
        "sys/class/devfreq/17000000.gpu/cur_freq": "918000000",
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:0/energy_uj": "1000000",
        "sys/class/powercap/intel-rapl:0:0/name": "core",
        "sys/class/powercap/intel-rapl:0:0/energy_uj": "500000",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    return tmp_path


def test_reads_what_is_there_with_units_and_rail_names(board: Path) -> None:
    telemetry = Telemetry(board, no_gpu)
    telemetry.read()
    (board / "sys/class/thermal/thermal_zone0/temp").write_text("51000")
    telemetry.read()
    got = jsonable(telemetry.readings())
    assert got["seen"]["temperature GPU-therm [C]"] == {"min": 48.5, "max": 51.0}
    assert got["seen"]["power rail VDD_GPU_SOC [W]"] == {"min": 12.0, "max": 12.0}
    assert got["seen"]["clock cpu fastest [MHz]"]["max"] == 2000
    assert got["seen"]["clock 17000000.gpu [MHz]"]["max"] == 918
    assert got["seen"]["power mode"] == ["pmode:0002"]
    assert got["governor"] == ["schedutil"]
    assert not any("off" in name for name in got["seen"])
    assert [m["what"] for m in got["not_measured"]] == ["GPU clocks, power mode, throttle reasons"]
    assert got["not_measured"][0]["reason"] == "no GPU in this test"


def test_nothing_there_is_said_with_reasons(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, no_gpu)
    telemetry.read()
    got = jsonable(telemetry.readings())
    assert len(got["not_measured"]) == 5
    assert all(m["reason"] for m in got["not_measured"])
    assert set(got["seen"]) == {"load average 1 min"}


def test_energy_goes_to_the_network_that_ran(board: Path) -> None:
    counter = board / "sys/class/powercap/intel-rapl:0/energy_uj"
    meter, done = Meter(Telemetry(board, no_gpu)), []
    for label, joules in (("a", 2.0), ("b", 8.0), ("a", 2.0)):
        with meter.block(label, lambda: len(done)):
            counter.write_text(str(float(counter.read_text()) + joules * 1e6))
            done.extend([0] * 4)
            time.sleep(LONG_ENOUGH)
    assert meter.per_inference() == {"a": {"powercap package-0": 0.5}, "b": {"powercap package-0": 2.0}}


def test_a_counter_that_wraps_is_left_out(board: Path) -> None:
    meter, done = Meter(Telemetry(board, no_gpu)), 0
    with meter.block("a", lambda: done):
        (board / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("5")
        done = 1
        time.sleep(LONG_ENOUGH)
    assert meter.per_inference() == {"a": {}}
    (line,) = meter.not_measured()
    assert line.what == "energy per inference of a, powercap package-0" and "wrapped" in line.reason


def test_a_block_shorter_than_the_counters_steps_gives_no_energy(board: Path) -> None:
    """NVML's counter moves ten times a second: of 10 ms it tells nothing, RAPL's does."""
    joules = iter((1.0, 3.0))
    gpu = lambda: nvml.Reading({"gpu power [W]": 200.0}, {"NVML whole GPU": next(joules)})  # noqa: E731
    counter = board / "sys/class/powercap/intel-rapl:0/energy_uj"
    meter, done = Meter(Telemetry(board, gpu)), 0
    with meter.block("engine fp16", lambda: done):
        counter.write_text("2000000")
        done = 10
        time.sleep(LONG_ENOUGH)
    assert meter.per_inference() == {"engine fp16": {"powercap package-0": 0.1}}
    (line,) = meter.not_measured()
    assert line.what == "energy per inference of engine fp16, NVML whole GPU"
    assert "too short for a counter that moves every 100 ms; give --seconds" in line.reason


def test_nvml_says_why_it_reads_nothing_or_reads() -> None:
    reading = nvml.read()
    assert bool(reading.values) != bool(reading.reason)
