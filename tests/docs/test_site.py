"""The documentation site: made of the package itself, built strictly, without network, fit for every reader."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import csa_deploy
from csa_deploy.cli.main import _HELP, VERBS
from csa_deploy.options import OPTIONS
from csa_deploy.restricted.schema import load_pack, scopes
from csa_deploy.workspace import Workspace

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings is not installed: pip install '.[docs]'")

from tools.site import pictures
from tools.site.hooks import generated, on_page_markdown
from tools.site.schemas import records, schema

ROOT = Path(csa_deploy.__file__).parents[1]
DOCS = ROOT / "docs"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    return generated()


def test_every_verb_has_a_page_with_every_option(pages: dict[str, str]) -> None:
    for verb in VERBS:
        assert "## Output" in pages[f"reference/cli/{verb}.md"]
    run = pages["reference/cli/run.md"]
    assert all(f"--{key.replace('_', '-')}" in run for key in ("scope", "budget", "calib_method", "timing_cache"))
    assert "--explain" in pages["reference/cli/check.md"] and "--explain" not in run


def test_every_key_is_listed(pages: dict[str, str]) -> None:
    assert all(f"| `{key}` |" in pages["reference/configuration-keys.md"] for key in OPTIONS)


def test_every_rule_is_listed_with_its_source(pages: dict[str, str]) -> None:
    for name in scopes():
        for rule in load_pack(name).rules:
            (line,) = (
                line
                for line in pages[f"reference/scopes/{name}.md"].splitlines()
                if line.startswith(f"| `{rule.id}` |")
            )
            assert rule.source[:20].replace("|", "\\|").replace("<", "&lt;") in line
            assert len(re.findall(r"(?<!\\)\|", line)) == 8, line  # seven cells


def test_every_exit_code_is_listed(pages: dict[str, str]) -> None:
    listed = re.findall(r"(?m)^\| (\d+) \|", pages["reference/exit-codes.md"])
    named = re.findall(r"(?m)\b(\d+) [a-z]", _HELP.partition("Exit codes:")[2])
    assert {*listed} == {*named} and len(named) > 8


def test_records_fit_their_schemas(tmp_path: Path, lab: Path) -> None:
    """A real run, and a record that lost a field does not fit."""
    jsonschema = pytest.importorskip("jsonschema")
    place = Workspace(str(tmp_path / "w"))
    csa_deploy.optimize(str(lab / "tiny.onnx"), workspace=place)
    csa_deploy.check(str(lab / "tiny.onnx"), scopes=["drive-os-6"], workspace=place)
    written = sorted((tmp_path / "w" / "records").glob("*.json"))
    assert {path.stem for path in written} >= {"export", "optimize", "check"}
    for path in written:
        made, data = schema(records()[path.stem]), json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(made)
        jsonschema.validate(data, made)
        del data["summary"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, made)


@pytest.mark.parametrize("name", ["pipeline", "levels", "intervals", "fix"])
def test_pictures_show_what_the_package_does(name: str) -> None:
    assert (DOCS / "pictures" / f"{name}.svg").read_text() == str(pictures.PICTURES[name]()), (
        f"run `python -m tools.site.pictures {name}`"
    )


def test_the_support_matrix_names_every_scope_with_its_version() -> None:
    rows = re.findall(r"(?m)^\| `([\w.-]+)` \| ([\d.]+) \|", (DOCS / "support-matrix.md").read_text())
    assert dict(rows) == {name: load_pack(name).tensorrt for name in scopes()} and len(rows) == len(scopes())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Words:\n- one\n- two", "Words:\n\n- one\n- two"),
        ("- one\n- two", "- one\n- two"),
        ("[w](../models/weights/a.md)", "[w](weights/a.md)"),
    ],
)
def test_markdown_of_a_checkout_reads_the_same_in_the_site(text: str, shown: str) -> None:
    assert on_page_markdown(text) == shown


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    _build(ROOT / "mkdocs.yml", folder, check=True)
    return folder


def _build(config: Path, folder: Path, *, check: bool) -> subprocess.CompletedProcess[str]:
    # not --quiet: strict counts the warnings that are shown
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", folder]
    return subprocess.run(words, cwd=ROOT, check=check, capture_output=True, text=True, timeout=300)


class _Fetched(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        named = given.get("src") or (given.get("href") if tag == "link" else None)
        if named and re.match(r"(https?:)?//", named):
            self.found.append(named)


@pytest.mark.slow
def test_the_site_fetches_nothing_and_has_markdown_beside_each_page(site: Path) -> None:
    for path in site.rglob("*.html"):
        parser = _Fetched()
        parser.feed(path.read_text(encoding="utf-8"))
        assert not parser.found, path
        assert path.name == "404.html" or path.with_suffix(".md").is_file(), path
    listed = re.findall(r"\]\((.+)\)", (site / "llms.txt").read_text())
    assert len(listed) > 60 and all((site / path).is_file() for path in listed)
    assert json.loads((site / "reference/schemas/check.json").read_text())["properties"]["scopes"]
    assert {entry["location"] for entry in json.loads((site / "search/search_index.json").read_text())["docs"]} > {
        "reference/cli/run.html"
    }


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["[a](nowhere.md)", "[a](verify.md#no-such-heading)", "![a](pictures/none.svg)"])
def test_a_broken_link_ends_the_build(tmp_path: Path, planted: str) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    with (tmp_path / "docs" / "report.md").open("a") as page:
        page.write(f"\n{planted}\n")
    config = (ROOT / "mkdocs.yml").read_text().replace("hooks: [tools", f"hooks: [{ROOT}/tools")
    (tmp_path / "mkdocs.yml").write_text(config.replace("paths: [.]", f"paths: [{ROOT}]"))
    done = _build(tmp_path / "mkdocs.yml", tmp_path / "site", check=False)
    assert done.returncode and "report.md" in done.stderr + done.stdout


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_pages_are_fit_for_every_reader(site: Path, browser: Any, theme: str, width: int) -> None:
    """axe-core finds nothing on pages of every kind, and none is wider than the window."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    kinds = (
        "index",
        "how-to/denied",
        "reference/cli/run",
        "reference/scopes/drive-os-6",
        "reference/api",
        "glossary",
        "tutorials/ci-gate",
    )
    kinds += ("zoo", "support-matrix", "overview")
    for kind in kinds:
        browser.get((site / f"{kind}.html").as_uri())
        found = axe.Axe().run(browser)["violations"]
        assert not found, (kind, [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, kind
