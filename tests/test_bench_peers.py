"""The comparison with other quantizers: what is measured of an INT8 graph, and what becomes of cells."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from benchmarks.int8_accuracy import VIEWS
from benchmarks.peers import __main__ as peers
from benchmarks.peers import networks, page
from benchmarks.peers.measure import accuracy
from benchmarks.peers.quantize import SETTINGS

CELL: dict[str, Any] = {
    **{"network": "net", "images": 16, "setting": "csa-deploy", "images_used": 16, "seconds": 2.0, "cpu_seconds": 3.0},
    **{"peak_mib": 1234, "versions": {"csa-deploy": "1"}, "held_out": 5, "snr_db": 12.345, "agreement": 0.9},
    **{"int8_layers": 1, "layers": 2, "scopes": ["a", "b"], "scopes_kept": ["b"], "date": "2026-11-29"},
}


@pytest.fixture()
def sides(tmp_path: Path, build: Any) -> tuple[Path, Path, Path]:
    """An FP32 graph of two layers, one whose first layer is between Q/DQ and whose output has another name, images."""
    weights = {"w": (3, 2, 1, 1), "v": (4, 3, 1, 1)}
    exact = build(
        "(float[1,2,4,4] x) => (float[1,4,1,1] y)",
        "c = Conv (x, w) d = Conv (c, v) y = GlobalAveragePool (d)",
        **weights,
    )
    body = """q = QuantizeLinear (x, s, z) a = DequantizeLinear (q, s, z) p = QuantizeLinear (w, t, z)
              b = DequantizeLinear (p, t, z) c = Conv (a, b) d = Conv (c, v) other = GlobalAveragePool (d)"""
    scales = {"s": np.float32(0.05), "t": np.float32(0.02), "z": np.int8(0)}
    int8 = build("(float[1,2,4,4] x) => (float[1,4,1,1] other)", body, **weights, **scales)
    for name, model in {"exact": exact, "int8": int8}.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "held-out.npz", images=np.random.default_rng(0).standard_normal((9, 2, 4, 4)).astype("f4"))
    return tmp_path / "exact.onnx", tmp_path / "int8.onnx", tmp_path / "held-out.npz"


def test_accuracy_is_that_of_brute_force_and_only_layers_between_qdq_count(sides: tuple[Path, Path, Path]) -> None:
    exact, int8, held_out = sides
    found = accuracy(exact, int8, held_out)
    images = np.load(held_out)["images"]

    def run(path: Path) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"x": image[None]})[0] for image in images]).astype("f8")

    want, have = run(exact), run(int8)
    per_image = ((want**2).sum((1, 2, 3)), ((want - have) ** 2).sum((1, 2, 3)))
    pooled = 10 * np.log10(per_image[0].sum() / per_image[1].sum())
    assert found["snr_db"] == pytest.approx(pooled, abs=0.02)
    assert (found["int8_layers"], found["layers"], found["held_out"]) == (1, 2, 9)
    assert found["scopes"] and set(found["scopes_kept"]) <= set(found["scopes"])


def test_a_graph_that_does_not_run_is_a_cell_that_says_so(sides: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model = onnx.load(sides[1])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((3, 5, 1, 1), "f4"), "w"))
    onnx.save(model, tmp_path / "bad.onnx")
    assert "does not run" in str(accuracy(sides[0], tmp_path / "bad.onnx", sides[2])["not_measured"])


def test_the_page_shows_figures_and_reasons_and_the_order_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    missing = {"network": "net", "images": 16, "setting": "NNCF, default", "not_measured": "no | wheel", "date": "x"}
    for number, cell in enumerate((missing, CELL)):
        (tmp_path / f"{number}.json").write_text(json.dumps(cell))
    page.write(tmp_path)
    text = (tmp_path / "page.md").read_text().split("## net, 16 images")[1]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1] == "| csa-deploy | 12.35 | 90.0 % | 1 of 2 | 1 of 2 | 3.0 | 2.0 | 1,234 |"
    assert rows[2].startswith("| NNCF, default | not measured: no / wheel |")


@pytest.mark.parametrize(
    ("snr", "layers", "kept", "shown"),
    [
        (12.34, 1, ["b"], "12.34 NNCF, default | 12.34 NNCF, default"),
        (12.36, 1, ["a", "b"], "**12.36 NNCF, default** | **12.36 NNCF, default**"),
        (12.36, 1, ["a"], "- | **12.36 NNCF, default**"),  # a scope that csa-deploy's keeps is denied
        (12.36, 0, ["b"], "- | **12.36 NNCF, default**"),  # a layer fewer
    ],
)
def test_the_brief_table_compares_like_with_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snr: float, layers: int, kept: list[str], shown: str
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    peer = {"setting": "NNCF, default", "snr_db": snr, "int8_layers": layers, "scopes_kept": kept}
    peer |= {"cpu_seconds": 1.0, "peak_mib": 2000}
    worse = {"setting": "csa-deploy, no techniques", "snr_db": 3.0, "cpu_seconds": 0.5}
    for number, cell in enumerate((CELL | peer, CELL | worse, CELL)):
        (tmp_path / f"{number}.json").write_text(json.dumps(cell))
    page.write(tmp_path)
    assert (
        f"| net | 16 | 12.35 | {shown} | 3.0 (0.5) / 1.0 | 1,234 (1,234) / 2,000 |\n"
        in (tmp_path / "page.md").read_text()
    )


def test_the_page_in_the_documentation_is_that_of_the_stored_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = page.PAGE.read_text()
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.write(peers.RESULTS)
    assert (tmp_path / "page.md").read_text() == stored


def test_every_tool_has_requirements_and_one_that_does_not_install_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {tool for tool, *_ in SETTINGS.values()} - {peers.OURS}
    assert tools == {path.stem for path in (peers.ROOT / "requirements" / "peers").glob("*.txt")}
    (tmp_path / "nncf").mkdir()
    (tmp_path / "nncf" / "failed.txt").write_text("not installed after 10 minutes\n")
    assert peers.environment("nncf", tmp_path, 1.0)[1] == "not installed after 10 minutes"
    assert peers.environment(peers.OURS, tmp_path, 1.0) == (Path(sys.executable), "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no')", "it failed: ValueError: no"),
        ("while True: pass", "not done after"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed: SIGSEGV"),
        ("import time; held = b'x' * 2**28; time.sleep(60)", "it takes more than 0 GiB of memory"),
    ],
)
def test_a_tool_that_fails_or_does_not_end_is_a_cell_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str, sides: tuple[Path, Path, Path]
) -> None:
    script = tmp_path / "quantize.py"
    script.write_text(body)
    monkeypatch.setattr(peers, "QUANTIZE", script)
    monkeypatch.setattr(peers, "MOST_MEMORY", 2**27)
    monkeypatch.setattr(peers, "prepare", lambda name, folder: sides[0])
    monkeypatch.setattr(peers, "images_for", lambda name, count, folder: (sides[2], 9))
    found = peers.cell("net", 16, "csa-deploy", tmp_path, tmp_path, 4.0)
    assert str(found["not_measured"]).startswith(said)


@pytest.mark.slow
def test_the_memory_of_a_cell_is_its_own_and_not_that_of_the_process_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: tuple[Path, Path, Path]
) -> None:
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(1).standard_normal((16, 2, 4, 4)).astype("f4"))
    monkeypatch.setattr(peers, "prepare", lambda name, folder: sides[0])
    monkeypatch.setattr(peers, "images_for", lambda name, count, folder: (tmp_path / "calibration.npz", 16))
    held = np.ones(2**27)  # 1 GiB, all of it touched
    found = peers.cell("net", 16, "csa-deploy, no techniques", tmp_path, tmp_path, 120.0)
    assert held[-1] and 20 < int(str(found["peak_mib"])) < 600


@pytest.mark.parametrize("count", [1, 5, 6, 35])
def test_places_of_views_differ_lie_in_their_picture_and_are_the_same_each_time(count: int) -> None:
    places = networks._places(count)
    assert places == networks._places(count) and tuple(places[:5]) == VIEWS
    assert len({*places}) == len(places) == max(count, 5)
    assert all(left >= 0 and top >= 0 and max(left, top) + share <= 1 for left, top, share in places)
