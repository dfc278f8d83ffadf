"""From the command line: build on a host, verify, profile, report, bundle; and no secret in anything that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
SECRET = "Xq7-hunter2"
LEVELS = {
    "10.16.0": ("consistency-checked", "reference-checked"),
    "11.1.0": ("consistency-checked", "reference-checked"),
    "11.3.1": ("reference-checked", None),
}


def kept(folder: Path) -> bytes:
    """All bytes below a folder, those inside bundles too."""
    found = b""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found += path.read_bytes()
    return found


@pytest.mark.parametrize("version", LEVELS)
def test_round_trip(
    thor: Callable, csa, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    target = thor(version)
    text = f"somebody else's text with ssh://nvidia:{SECRET}@thor:22?remote_exec_path=/b"
    monkeypatch.setenv("STANDIN_WARN", text)  # whatever trtexec prints
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32))
    where = ("--workspace", tmp_path / "w", "--fp32")
    dry = csa(tmp_path, "build", graph, "--restricted", "--safe", "--target", target.file, "--dry-run", *where)
    assert dry.returncode == 0, dry.stderr
    places = [dry.stdout.index(said) for said in ("ls -d", "held by", "--saveEngine", "trtexec_safe --load")]
    assert places == sorted(places) and not (target.folder / "tuned").exists()
    build = csa(tmp_path, "build", graph, "--restricted", "--safe", "--target", target.file, *where)
    assert build.returncode == 0, build.stderr
    level, above = LEVELS[version]
    entry = json.loads((tmp_path / "w" / "records" / "build.json").read_text())["engines"]["fp32"]
    assert entry["restricted"]["level"] == level
    assert entry["restricted"]["why_not_next"].partition(":")[0] == (above or "")
    assert {scope["level"] for scope in entry["scopes"]} <= {level, "static", "validator"}
    passport = json.loads(next((tmp_path / "w" / "engines").glob("*.passport.json")).read_text())
    assert passport["restricted"]["level"] == level and passport["engine"]["artifact_sha256"]
    verify = csa(tmp_path, "verify", graph, "--data", tmp_path / "data.npz", *where)
    assert "not compared: trtexec_safe" in verify.stdout + verify.stderr
    profile = csa(tmp_path, "profile", graph, "--iterations", "10", *where)
    assert profile.returncode == 0, profile.stderr
    measured = json.loads((tmp_path / "w" / "measurements" / "profile.json").read_text())
    assert len(measured["latency"]["engine fp32"]["samples_ms"]) == 11
    report = csa(tmp_path, "report", graph, *where[:2])
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "w" / "report.html").read_text()
    assert f"level {level}" in page and (above is None or f"not {above}:" in page)
    bundle = tmp_path / "net.tar"
    made = csa(
        tmp_path,
        "bundle",
        graph,
        "-o",
        bundle,
        "--workspace",
        tmp_path / "w",
        "--precision",
        "fp32",
        "--despite-failure",
    )
    assert made.returncode == 0, made.stderr
    proved = csa(tmp_path, "verify-bundle", bundle, "--unpack", tmp_path / "unpacked")
    assert proved.returncode == 0, proved.stderr
    assert f"level {level}" in proved.stdout
    names = {path.name for path in (tmp_path / "unpacked" / "engine").rglob("*")}
    assert "engine.plan.txt" in names and ("generated_host_code.so" in names) == version.startswith("11.3")
    for done in (dry, build, verify, profile, report, made, proved):
        assert SECRET not in done.stdout + done.stderr
    assert SECRET.encode() not in kept(tmp_path / "w") + kept(tmp_path / "unpacked") + bundle.read_bytes()
    assert b"somebody else's text with ssh://***@thor" in kept(tmp_path / "w")  # it was there, and is masked
    assert target.work == []
