"""The page in a real browser: tabs, sorting, themes, print, a narrow window, the keyboard, and axe-core."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing: apt-get install chromium chromium-driver"
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)
TABS = ["overview", "restricted", "accuracy", "precision", "latency", "layers", "graph", "build", "evidence"]


@pytest.fixture(scope="module")
def browser(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture()
def page(browser: Any, digits: Any) -> Any:
    browser.set_window_size(1280, 1000)
    browser.get("about:blank")
    browser.get((digits.root / "report.html").as_uri())
    return browser


def find(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def visible_panels(page: Any) -> list[str]:
    panels = page.find_elements("css selector", "[role=tabpanel]")
    return [p.get_attribute("id").removesuffix("-panel") for p in panels if p.is_displayed()]


def open_tab(page: Any, name: str) -> None:
    find(page, f"#tab-{name}").click()


def test_says_its_verdict_first(page: Any) -> None:
    assert visible_panels(page) == ["overview"]
    assert find(page, ".verdict .word").text in ("PASS", "INCOMPLETE")
    assert find(page, ".verdict").rect["y"] < 300


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_without_a_sign(page: Any, theme: str) -> None:
    """The main table fits a desktop window; what scrolls in a narrow one shows a shadow where there is more."""
    page.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    overflowing = (
        "return [...document.querySelectorAll('.sheet, .chart-scroll')]"
        ".filter(e => e.offsetParent && e.scrollWidth > e.clientWidth).map(e => getComputedStyle(e).backgroundImage)"
    )
    wait = WebDriverWait(page, 20)
    page.set_window_size(1400, 1000)
    wait.until(lambda p: p.execute_script("return innerWidth") == 1400)
    assert page.execute_script(overflowing) == []
    page.set_window_size(420, 1000)
    found = wait.until(lambda p: p.execute_script(overflowing))
    assert found and all(shadow.count("linear-gradient") == 4 for shadow in found)


def test_tabs_by_mouse_and_by_keyboard(page: Any) -> None:
    names = [t.get_attribute("data-name") for t in page.find_elements("css selector", "[role=tab]")]
    assert [name for name in TABS if name in names] == names
    for name in names:
        open_tab(page, name)
        assert visible_panels(page) == [name]
    find(page, f"#tab-{names[-1]}").send_keys(Keys.HOME)
    assert visible_panels(page) == [names[0]]
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert visible_panels(page) == [names[1]]
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert visible_panels(page) == [names[-1]]
    page.refresh()
    assert visible_panels(page) == [names[-1]]  # the address remembers


def test_every_table_sorts_both_ways(page: Any) -> None:
    open_tab(page, "latency")
    table = find(page, "table[aria-label=latency]")
    head = table.find_elements("css selector", "th")[1]
    for direction in ("ascending", "descending"):
        head.find_element("css selector", "button").click()
        assert head.get_attribute("aria-sort") == direction
        shown = [float(c.text.split()[0]) for c in table.find_elements("css selector", "tbody td:nth-child(2)")]
        assert shown == sorted(shown, reverse=direction == "descending")
    without = page.execute_script(
        "return [...document.querySelectorAll('table')].filter(t => !t.querySelector('th[aria-sort] button')).length"
    )
    assert without == 0


def test_numbers_sort_by_value_not_by_text(page: Any) -> None:
    table = find(page, "table[aria-label='graphs and engines']")
    heads = table.find_elements("css selector", "thead th")
    (size,) = [h for h in heads if "size" in h.text]
    size.find_element("css selector", "button").click()
    cells = table.find_elements("css selector", f"tbody td:nth-child({heads.index(size) + 1})")
    values = [int(c.get_attribute("data-value")) for c in cells]
    assert values == sorted(values) and len(set(values)) > 1


def test_copies_and_saves_what_it_shows(page: Any, digits: Any) -> None:
    page.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    find(page, "[aria-label='Copy: graphs and engines']").click()
    copied = page.execute_async_script("const done = arguments[0]; navigator.clipboard.readText().then(done, done)")
    assert copied.splitlines()[0].startswith("graph or engine\tsize")
    assert "fp32 graph" in copied
    find(page, "#json").click()
    saved = wait_for(page.downloads / "report.json")
    assert json.loads(saved) == json.loads((digits.root / "report.json").read_text())
    find(page, "[aria-label='JSON: graphs and engines']").click()
    rows = json.loads(wait_for(page.downloads / "graphs-and-engines.json"))
    assert rows[0]["graph or engine"].startswith("exported graph")


def wait_for(path: Path) -> str:
    import time

    for _ in range(100):
        if path.is_file() and path.stat().st_size:
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path.name} was not saved")


def test_dark_and_light(page: Any) -> None:
    def brightness() -> float:
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3])

    page.execute_script("localStorage.clear()")
    page.refresh()
    light = brightness()
    find(page, "#theme").click()
    assert brightness() < light / 4
    assert find(page, "#theme").get_attribute("aria-pressed") == "true"
    page.refresh()
    assert brightness() < light / 4  # remembered
    find(page, "#theme").click()
    assert brightness() == light


def box(drawing: Any) -> list[float]:
    return [float(v) for v in drawing.get_dom_attribute("viewBox").split()]


def test_the_graph_zooms_colours_and_tells(page: Any) -> None:
    open_tab(page, "graph")
    drawing = find(page, ".network:not([hidden]) svg")
    before = box(drawing)
    find(page, "#zoom-in").click()
    zoomed = box(drawing)
    assert zoomed[2] < before[2]
    find(page, ".network:not([hidden])").send_keys(Keys.ARROW_RIGHT)
    assert box(drawing)[0] > zoomed[0]
    find(page, ".network:not([hidden])").send_keys("0")
    assert box(drawing) == before
    fill = "return document.querySelectorAll('.network:not([hidden]) rect')[1].style.fill"
    for by in ("time", "precision", "macs", "bytes"):
        find(page, f"#colour option[value={by}]").click()
        assert page.execute_script(fill)
        assert find(page, "#legend").text
    node = "document.querySelectorAll('.network:not([hidden]) .node')[1]"
    page.execute_script(f"{node}.dispatchEvent(new Event('click', {{bubbles: true}}))")
    assert "Conv" in find(page, "#node-detail").text or "output" in find(page, "#node-detail").text


def test_dragging_moves_the_graph_with_the_pointer_and_the_wheel_zooms_about_it(page: Any) -> None:
    open_tab(page, "graph")
    find(page, "#zoom-in").click()
    drawing = find(page, ".network:not([hidden]) svg")
    under = """
        const svg = document.querySelector('.network:not([hidden]) svg'), at = svg.getBoundingClientRect();
        const p = new DOMPoint(at.x + at.width / 2 + arguments[0], at.y + at.height / 2 + arguments[1]);
        const q = p.matrixTransform(svg.getScreenCTM().inverse());
        return [q.x, q.y]
    """
    taken = page.execute_script(under, 0, 0)
    drag = webdriver.ActionChains(page).move_to_element(drawing).click_and_hold().move_by_offset(60, 30).release()
    drag.perform()
    assert page.execute_script(under, 60, 30) == pytest.approx(taken, abs=1.5)
    narrow, kept = box(drawing)[2], page.execute_script(under, 60, 30)
    event = "new WheelEvent('wheel', {deltaY: -1, cancelable: true, clientX: x + w / 2 + 60, clientY: y + h / 2 + 30})"
    at = "const {x, y, width: w, height: h} = arguments[0].getBoundingClientRect();"
    page.execute_script(f"{at} arguments[0].dispatchEvent({event})", drawing)
    assert box(drawing)[2] < narrow and page.execute_script(under, 60, 30) == pytest.approx(kept, abs=0.5)


def test_another_graph_is_chosen_under_layers_and_under_graph_alike(page: Any) -> None:
    open_tab(page, "layers")
    labels = [o.get_attribute("value") for o in page.find_elements("css selector", "#layers-panel .which option")]
    assert labels[:2] == ["fp16", "fp32"]
    find(page, "#layers-panel .which option[value=fp32]").click()
    assert "fp32 graph" in find(page, "#layers-fp32").text
    assert not find(page, "#layers-fp16").is_displayed()
    open_tab(page, "graph")
    assert find(page, ".network[data-graph=fp32]").is_displayed()
    assert not find(page, ".network[data-graph=fp16]").is_displayed()


def test_finding_dims_all_other_nodes(page: Any) -> None:
    open_tab(page, "graph")
    count = (
        "return [...document.querySelectorAll('.network:not([hidden]) .node')].filter(n => !n.matches('.dim')).length"
    )
    every = page.execute_script(count)
    find(page, "#find").send_keys("Sigmoid")
    assert 0 < page.execute_script(count) < every
    find(page, "#find").clear()
    find(page, "#find").send_keys(" ")
    assert page.execute_script(count) == every


def test_everything_is_reached_in_the_order_of_reading(page: Any) -> None:
    open_tab(page, "graph")
    find(page, "#tab-graph").send_keys(Keys.SHIFT + Keys.TAB)
    seen = []
    for _ in range(9):
        page.switch_to.active_element.send_keys(Keys.TAB)
        active = page.switch_to.active_element
        seen.append(active.get_attribute("id") or active.get_attribute("class"))
    assert seen == ["tab-graph", "which", "colour", "find", "zoom-in", "zoom-out", "zoom-fit", "network", seen[-1]]
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") is not None


def test_tables_sort_with_the_keyboard(page: Any) -> None:
    head = find(page, "table[aria-label='graphs and engines'] th:nth-child(2)")
    button = head.find_element("css selector", "button")
    page.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending"


def test_a_narrow_window_scrolls_down_only(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for tab in page.find_elements("css selector", "[role=tab]"):
            page.execute_script("arguments[0].click()", tab)
            wide = page.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 391, tab.text
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_holds_everything(page: Any) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        tabs = [t.get_attribute("data-name") for t in page.find_elements("css selector", "[role=tab]")]
        assert visible_panels(page) == tabs
        assert not find(page, "[role=tablist]").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page") > 3


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 400)])
def test_accessible(page: Any, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    page.execute_script("localStorage.setItem('csa-theme', arguments[0])", theme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    # All parts at once: axe looks at what is visible only, and takes seconds each time.
    page.execute_script(
        "document.querySelectorAll('[role=tabpanel]').forEach(p => p.hidden = false);"
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    found = [
        (violation["id"], node["html"][:150], node["failureSummary"])
        for violation in axe.Axe().run(page)["violations"]
        for node in violation["nodes"][:2]
    ]
    page.execute_script("localStorage.clear()")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert found == []


def test_nothing_is_fetched_and_nothing_goes_wrong(page: Any) -> None:
    page.get_log("performance")
    page.refresh()
    for tab in page.find_elements("css selector", "[role=tab]"):
        tab.click()
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert [e for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
