"""``python -m benchmarks.peers``: measure the cells that are missing, one after another, then write the page.

A cell is one setting of a tool on one network with one number of images; its result is a file under
``benchmarks/peers/results``, and is measured again once that file is removed. Each tool runs in an environment of its
own under ``--environments``, made of ``requirements/peers/TOOL.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import page
from benchmarks.peers.measure import accuracy
from benchmarks.peers.networks import images_for, networks, prepare
from benchmarks.peers.quantize import SETTINGS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
QUANTIZE = Path(__file__).with_name("quantize.py")
OURS = "csa-deploy"
MOST_MEMORY = 12 << 30


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[16, 64, 512])
    parser.add_argument("--networks", nargs="+", default=list(networks()), choices=list(networks()))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--environments", type=Path, default=ROOT / ".peers")
    parser.add_argument("--work", type=Path, default=ROOT / ".peers" / "work", help="graphs and images")
    parser.add_argument("--minutes", type=float, default=10, help="for one cell, and for installing one tool")
    given = parser.parse_args(arguments)
    limit = 60 * given.minutes
    for network in given.networks:
        for images in given.images:
            for setting in given.settings:
                kept = RESULTS / f"{_word(network)}-{images}-{_word(setting)}.json"
                if kept.is_file():
                    continue
                found = {"network": network, "images": images, "setting": setting}
                found |= cell(network, images, setting, given.environments, given.work / _word(network), limit)
                found["date"] = datetime.now(UTC).date().isoformat()
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(json.dumps(found, indent=2) + "\n")
                print(json.dumps(found), flush=True)
    page.write(RESULTS)


def cell(network: str, images: int, setting: str, environments: Path, work: Path, limit: float) -> dict[str, object]:
    """What one quantization took and gave, or under ``not_measured`` why it did not."""
    tool = SETTINGS[setting][0]
    python, reason = environment(tool, environments, limit)
    if reason:
        return {"not_measured": reason}
    graph = prepare(network, work)
    calibration, count = images_for(network, images, work)
    output = work / f"{_word(setting)}-{images}.onnx"
    command = [str(python), str(QUANTIZE), setting, str(graph), str(calibration), str(output)]
    log, start = output.with_suffix(".log"), time.perf_counter()
    with log.open("w") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=work, env=_quiet())
        try:
            while (ended := os.wait4(child.pid, os.WNOHANG))[0] == 0:
                if too_much := _too_much(child.pid, time.perf_counter() - start, limit):
                    child.kill()
                    os.wait4(child.pid, 0)
                    return {"not_measured": too_much}
                time.sleep(0.05)
        finally:
            child.returncode = 0  # it was waited for
    seconds, (_, status, usage) = time.perf_counter() - start, ended
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    if os.WIFSIGNALED(status):
        return {"not_measured": f"it crashed: {signal.Signals(os.WTERMSIG(status)).name}"}
    if status or not output.is_file():
        said = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        return {"not_measured": f"it failed: {said.strip()[:200]}"}
    return {
        "images_used": count,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        **json.loads(lines[-1]),
        **accuracy(graph, output, work / "held-out.npz"),
    }


def _too_much(process: int, seconds: float, limit: float) -> str:
    """Why a process is ended, if it is."""
    if seconds > limit:
        return f"not done after {limit / 60:.0f} minutes"
    with suppress(OSError, IndexError):  # it has just ended
        resident = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        if resident > MOST_MEMORY:
            return f"it takes more than {MOST_MEMORY >> 30} GiB of memory"
    return ""


def environment(tool: str, environments: Path, limit: float) -> tuple[Path, str]:
    """The Python of a tool's environment, made if it is missing, and why there is none."""
    if tool == OURS:
        return Path(sys.executable), ""
    folder = environments / tool
    python, failed = folder / "bin" / "python", folder / "failed.txt"
    if failed.is_file():
        return python, failed.read_text().strip()
    if not (folder / "installed").is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        requirements = ROOT / "requirements" / "peers" / f"{tool}.txt"
        install = [str(python), "-m", "pip", "install", "-q", "-r", str(requirements)]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            failed.write_text(f"not installed after {limit / 60:.0f} minutes\n")
            return python, failed.read_text().strip()
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if "ERROR" in line] or ["no reason given"]
            failed.write_text(f"does not install here: {said[0][:200]}\n")
            return python, failed.read_text().strip()
        (folder / "installed").touch()
    return python, ""


def _quiet() -> dict[str, str]:
    """No Python path of ours in another tool's environment, and two threads at most."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}


def _word(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split()).lower()


if __name__ == "__main__":
    main()
