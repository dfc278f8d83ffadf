"""Records a real run for the README: ``python -m tools.site.recording`` runs the demonstration and writes two pictures.

``demo.svg`` is what the terminal showed, line after line; ``report.png`` is the page, as headless Chromium draws it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.site.pictures import FOLDER

COMMAND = "csa-deploy run csa_digits --restricted"
_WIDTH, _LINE, _CHARACTER = 112, 19, 7.55


def terminal(command: str, lines: list[str]) -> str:
    """An SVG in which the lines appear one after another; at once for those who want no motion."""
    shown = [f"$ {command}", *(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines)]
    height, width = _LINE * len(shown) + 34, round(_WIDTH * _CHARACTER) + 32
    rows = [
        f'<text class="line" style="animation-delay:{0.35 * number:.2f}s" x="16" y="{28 + _LINE * number}" '
        f'fill="{_color(line)}" xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(shown)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="Recording of {escape(command)}" font-family="ui-monospace, Menlo, Consolas, monospace" '
        f'font-size="12.5">\n<title>Recording of {escape(command)}</title>\n<style>.line{{opacity:0;'
        "animation:show .01s forwards}@keyframes show{to{opacity:1}}@media(prefers-reduced-motion:reduce)"
        "{.line{animation:none;opacity:1}}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#16211f"/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def _color(line: str) -> str:
    if line.startswith("$"):
        return "#9fd8cf"
    return "#7ee2b8" if line.lstrip().startswith(("✓", "PASS", "pass")) else "#dfe7e5"


def screenshot(page: Path, picture: Path) -> None:
    """The first screen of a page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,900"):
        options.add_argument(word)
    with webdriver.Chrome(options=options) as driver:
        driver.get(page.resolve().as_uri())
        time.sleep(1)  # drawings are made when they are seen
        driver.save_screenshot(str(picture))


def main() -> None:
    """Run, and write both."""
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "csa_deploy", *COMMAND.split()[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
        verdict = done.stdout[done.stdout.index("PASS csa_digits") :].strip().splitlines()
        steps = [line for line in done.stderr.splitlines() if line.startswith("✓")]
        (FOLDER / "demo.svg").write_text(terminal(COMMAND, [*steps, "", *verdict]), encoding="utf-8")
        screenshot(Path(folder) / "deploy" / "csa_digits" / "report.html", FOLDER / "report.png")


if __name__ == "__main__":
    main()
