"""The mark ``shows("MEA-07", needs="TensorRT-RTX")``: a plug-in of pytest, which conftest.py takes in.

What a test shows goes into the JUnit file, as properties of its cases. A test that shows something and is skipped
fails, unless its mark says what it needs: the kit prints that.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

MARK = "shows(*ids, needs=''): what a test shows, by ids of csa_deploy/confidence/facts; what it is skipped without"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    for mark in item.iter_markers("shows"):
        item.user_properties += [("shows", name) for name in mark.args]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("shows")
    if report.skipped and mark and not mark.kwargs.get("needs"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"shows {', '.join(mark.args)}, was skipped ({reason}), and its mark has no needs="
    return report
