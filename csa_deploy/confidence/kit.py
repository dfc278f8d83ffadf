"""The tool-confidence kit: one object, its JSON, its page, and the folder that a reviewer files."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from csa_deploy import __version__
from csa_deploy.confidence.outcomes import TestResults, read_results, unstated_skips
from csa_deploy.confidence.packages import InstalledPackage, installed_packages
from csa_deploy.confidence.schema import Measure, PotentialError, ToolConfidence, tool_confidence
from csa_deploy.confidence.trace import ShowingTest, Trace, lobster_files, packaged_trace
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.levels import LEVELS
from csa_deploy.records.report import GateState
from csa_deploy.results import dump_json
from csa_deploy.workspace import write_atomic

SCHEMA_VERSION = 1
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PRINT_SECONDS = 120.0
_LOBSTER = {"passed": "ok", "failed": "fail"}


@dataclass(frozen=True)
class JudgedWorkspace:
    """A workspace whose gates the kit shows.

    Attributes:
        state: verdict of its report: ``pass``, ``fail`` or ``incomplete``.
        reasons: what keeps it from a pass.
    """

    network: str
    state: str
    reasons: tuple[str, ...]
    gates: tuple[GateState, ...]


@dataclass(frozen=True)
class ConfidenceKit:
    """All that the kit says.

    Attributes:
        confidence: use cases, errors, measures, manual, known problems.
        trace: which test shows what.
        results: of a run of the tests; empty where none was given.
        made: time, UTC.
        python, system: what it was made with.
        deployment: a workspace's gates; None where none was given.
    """

    confidence: ToolConfidence
    trace: Trace
    results: TestResults
    packages: tuple[InstalledPackage, ...]
    made: str
    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")
    deployment: JudgedWorkspace | None = None

    @property
    def unstated(self) -> list[str]:
        """Tests that were skipped without the trace saying what they need."""
        return list(unstated_skips(self.trace, self.results))

    @property
    def unsupported(self) -> list[str]:
        """Errors whose level this run does not support: a test of theirs, or of a measure against them, failed."""
        failed = {name for t in self.trace.tests.values() if self.results.of(t).outcome == "failed" for name in t.shows}
        return [error.id for error in self.confidence.errors if failed & {error.id, *error.measures}]

    def said_of(self, test: ShowingTest) -> str:
        """The result of a test in words."""
        result = self.results.of(test)
        if result.outcome == "not run":
            return "not run"
        cases = f" ({result.cases} cases)" if result.cases > 1 else ""
        return f"{result.outcome}{cases}" + (f": {result.reason}" if result.reason else "")

    def shown_by(self, name: str) -> str:
        """How many tests show a measure or an error, and what came out: ``3 tests: 2 passed, 1 skipped``."""
        tests = self.trace.of(name)
        counts = self.results.count(tests)
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        return f"{len(tests)} test{'s' * (len(tests) != 1)}: {said}" if tests else "no test"

    def past_of(self, error: PotentialError) -> str:
        """The known problems that were such an error, in words."""
        known = {problem.id: problem.title for problem in self.confidence.problems.problems}
        return "; ".join(f"{known[name]} ({name})" for name in error.past) or "none is known"

    def to_json(self) -> dict[str, Any]:
        """``kit.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "csa-deploy", "version": __version__, "python": self.python, "system": self.system},
            "made": self.made,
            "packages": [asdict(package) for package in self.packages],
            "use_cases": [
                {**u.model_dump(), "confidence": self.confidence.confidence_of(u)} for u in self.confidence.use_cases
            ],
            "errors": [self._error(error) for error in self.confidence.errors],
            "measures": [self._measure(measure) for measure in self.confidence.measures],
            "known_problems": self.confidence.problems.model_dump(mode="json"),
            "manual": self.confidence.manual.model_dump(),
            "levels_of_evidence": LEVELS,
            "results": {key: getattr(self.results, key) for key in ("source", "sha256", "when")},
            "not_supported_by_this_run": self.unsupported,
            "skipped_without_saying_so": self.unstated,
            "deployment": asdict(self.deployment) if self.deployment else None,
        }

    def _error(self, error: PotentialError) -> dict[str, Any]:
        return {**error.model_dump(), "confidence": error.confidence, "tests": self._tests(error.id)}

    def _measure(self, measure: Measure) -> dict[str, Any]:
        against = [error.id for error in self.confidence.errors_against(measure)]
        return {**measure.model_dump(), "against": against, "tests": self._tests(measure.id)}

    def _tests(self, name: str) -> list[dict[str, Any]]:
        return [{"id": t.id, "needs": t.needs, **asdict(self.results.of(t))} for t in self.trace.of(name)]


def make_kit(results: Path | None = None, deployment: JudgedWorkspace | None = None) -> ConfidenceKit:
    """The kit of this installation.

    Args:
        results: JUnit XML of a run of this version's tests.
        deployment: a workspace's gates to show beside them.

    Raises:
        UsageError: the results cannot be read, or are of other tests.
    """
    trace = packaged_trace()
    return ConfidenceKit(
        tool_confidence(),
        trace,
        read_results(results, trace) if results else TestResults(),
        tuple(installed_packages()),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        deployment=deployment,
    )


def write_kit(kit: ConfidenceKit, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``kit.json``, ``trace.json``, LOBSTER's two files and ``kit.html``; with ``pdf`` also ``kit.pdf``.

    Raises:
        UsageError: the folder cannot be written.
        EnvironmentLacksError: no browser that prints.
    """
    from csa_deploy.confidence.page import page_of_kit

    status = {test.id: _LOBSTER.get(kit.results.of(test).outcome, "not run") for test in kit.trace.tests.values()}
    documents = {"kit.json": kit.to_json(), "trace.json": kit.trace.to_json()}
    documents |= lobster_files(kit.confidence, kit.trace, status)
    contents = {name: dump_json(data) for name, data in documents.items()}
    contents["kit.html"] = page_of_kit(kit)
    try:
        for name, content in contents.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}", fix="give another folder by -o") from error
    written = [folder / name for name in contents]
    return [*written, print_page(folder / "kit.html")] if pdf else written


def print_page(page: Path) -> Path:
    """Print an HTML file to PDF beside it, by the browser of this machine.

    Raises:
        EnvironmentLacksError: there is none, or it does not print.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    by_hand = "open kit.html in a browser and print it, or install chromium"
    if browser is None:
        raise EnvironmentLacksError("no chromium or chrome here to print kit.html", fix=by_hand)
    made = page.with_suffix(".pdf")
    words = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    words += [f"--print-to-pdf={made.resolve()}", page.resolve().as_uri()]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PRINT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentLacksError(f"{browser} did not print in {_PRINT_SECONDS:.0f} s", fix=by_hand) from None
    if done.returncode or not made.is_file():
        said = " ".join(done.stderr.split()[-20:])
        raise EnvironmentLacksError(f"{browser} did not print: {said}", fix=by_hand)
    return made
