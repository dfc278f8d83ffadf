"""The part of the page on segmentation and detection, in a browser as well: light, dark, and 420 pixels wide."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import csa_deploy as csa
from csa_deploy.api.reporting import page_of_results
from csa_deploy.boxes import Detections
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.records.report import ReportData
from csa_deploy.records.task_views import DrawnSample, PrecisionCurves, SeenClass, TaskCandidate, TaskRow, TaskViews
from csa_deploy.report.charts.detection import boxes, precision_recall
from csa_deploy.report.page import MOST_BYTES, page_of
from csa_deploy.report.tasks import task_views
from csa_deploy.results import dump_json
from csa_deploy.tasks.task import Detection, Segmentation
from csa_deploy.tasks.views import COLOURS, drawn
from csa_deploy.verify.task_views import _TASK
from csa_deploy.workspace import Workspace

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def _picture(side: int = 160) -> str:
    ramp = np.linspace(0, 255, side)
    pixels = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (side, 1)), np.full((side, side), 90.0)], 2)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "jpeg")
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _segmentation() -> TaskViews:
    rng, task = np.random.default_rng(0), Segmentation(("road", "car <b>", "sky"))
    blocks = np.kron(rng.integers(0, 3, (6, 8)), np.ones((20, 20), int))
    one, other = ({"m": np.eye(3)[mask].transpose(2, 0, 1)} for mask in (blocks, np.roll(blocks, 7, axis=1)))
    sample = replace(drawn(task, one, other, Mask(blocks)), said="mean IoU 90 % to 80 %", input=_picture())
    candidate = TaskCandidate(
        label="int8",
        classes=tuple(TaskRow(name, 0.9, 0.8) for name in task.classes),
        worst=tuple(replace(sample, id=f"s{i}") for i in range(3)),
        seen=tuple(SeenClass(name, COLOURS[i]) for i, name in enumerate(task.classes)),
    )
    return TaskViews(kind="segmentation", labelled=True, worst_by="by loss of mean IoU", candidates=(candidate,))


def _detection() -> TaskViews:
    task = Detection(
        ("car", "person & bike"), lambda o: Detections(o["b"][:, :4], o["b"][:, 4], o["b"][:, 5].astype(int))
    )
    one = {"b": np.asarray([[10, 10, 60, 60, 0.9, 0], [80, 20, 140, 70, 0.8, 1], [20, 90, 60, 150, 0.7, 0.0]])}
    other = {"b": np.asarray([[10, 10, 60, 60, 0.9, 0], [85, 25, 140, 75, 0.8, 1], [100, 100, 150, 150, 0.6, 1.0]])}
    truth = Boxes(np.asarray([[10.0, 10, 60, 60]]), np.asarray([0]))
    sample = replace(drawn(task, one, other, truth), said="one lost", size=(160, 160), input=_picture())
    candidate = TaskCandidate(
        label="int8",
        classes=tuple(TaskRow(name, 0.9, 0.8) for name in task.classes),
        sizes=(TaskRow("all", 0.9, 0.8), TaskRow("small", None, None)),
        curves=PrecisionCurves(*(tuple(np.linspace(*ends, 101).tolist()) for ends in ((0, 1), (1, 0.4), (1, 0.2)))),
        worst=tuple(replace(sample, id=f"s{i}") for i in range(3)),
    )
    return TaskViews(kind="detection", labelled=True, worst_by="by agreement", candidates=(candidate,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """Of a comparison of a map with itself."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    samples = np.random.default_rng(0).random((20, 3, 8, 8), np.float32)
    found = csa.compare(model, [model], data=samples)
    return page_of_results([found], Workspace(tmp_path_factory.mktemp("w")))[0]


def _page(data: ReportData, task: TaskViews, tmp_path: Path) -> str:
    (tmp_path / _TASK).parent.mkdir(exist_ok=True)
    (tmp_path / _TASK).write_text(dump_json(task.to_json()))
    views, pictures = task_views(Workspace(tmp_path))
    return page_of(replace(data, task=views), pictures)


def test_a_strip_has_five_pictures_and_names_are_escaped(data: ReportData, tmp_path: Path) -> None:
    page = _page(data, _segmentation(), tmp_path)
    assert page.count('class="strip"') == 3 and page.count("<figure>") == 15
    assert "car &lt;b&gt;" in page and "car <b>" not in page
    assert "-10.00" in page and len(page.encode()) < MOST_BYTES
    embedded = page.partition('id="report-data">')[2].partition("</script>")[0]
    assert json.loads(embedded)["task"]["kind"] == "segmentation" and "data:image/png" not in embedded


def test_boxes_are_drawn_by_what_became_of_them(data: ReportData, tmp_path: Path) -> None:
    page = _page(data, _detection(), tmp_path)
    assert page.count('<svg class="boxes"') == 3
    for state in ("same", "moved", "lost", "new", "truth", "moved from"):
        assert page.count(f'class="{state}"><title>') == 3
    assert "person &amp; bike" in page
    assert "Boxes on s0: 1 same, 1 moved, 1 lost, 1 new" in page
    assert "Precision and recall of the reference and 1 candidates" in page


def test_a_comparison_of_no_task_has_no_such_part(data: ReportData) -> None:
    assert data.task is None and "tab-task" not in page_of(data, {})


def test_without_labels_there_is_no_curve() -> None:
    assert precision_recall([TaskCandidate(label="int8")]) == ""
    sample = DrawnSample(id="s", size=(10, 20))
    assert "0 same, 0 moved" in boxes(sample, None) and "<image" not in boxes(sample, None)


def test_the_views_survive_their_file() -> None:
    """Whose names of two fields are words of Python."""
    views = _detection()
    stored = json.loads(dump_json(views.to_json()))
    assert TaskViews.from_json(stored) == views
    moved = next(box for box in stored["candidates"][0]["worst"][0]["boxes"] if box["state"] == "moved")
    assert (moved["class"], moved["from"]) == ("person & bike", [80.0, 20.0, 140.0, 70.0])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("task", [_segmentation, _detection])
def test_everything_is_seen_in_a_browser(
    browser: Any, data: ReportData, tmp_path: Path, task: Any, width: int, theme: str
) -> None:
    file = tmp_path / "page.html"
    file.write_text(_page(data, task(), tmp_path), encoding="utf-8")
    browser.set_window_size(width, 1400)
    browser.get(file.as_uri() + "#task")
    browser.execute_script(
        f"document.documentElement.dataset.theme = '{theme}'; document.querySelector('#tab-task').click()"
    )
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#task-panel :is(img, svg)')].map(e => {"
        "const b = e.getBoundingClientRect(); return [b.width, b.height, e.complete ?? true]})"
    )
    assert len(shown) >= 3 and all(w > 40 and h > 20 and complete for w, h, complete in shown)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
