"""The report stage: report.json and report.html in the workspace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from csa_deploy.records.report import ReportData, ReportRecord
from csa_deploy.report.data import collect
from csa_deploy.report.page import page_of
from csa_deploy.report.side_files import remember
from csa_deploy.report.tasks import task_views
from csa_deploy.workspace import StageOutput, dump_json

if TYPE_CHECKING:
    from csa_deploy.context import Context


def run(context: Context) -> StageOutput[ReportRecord]:
    """Render what the workspace holds."""
    data = collect(context.workspace)
    data = replace(data, history=remember(context.workspace, data.verdict.state))
    page, plain = context.scratch / "report.html", context.scratch / "report.json"
    page.write_text(page_of(data, pictures(context, data)), encoding="utf-8")
    plain.write_text(dump_json(data.to_json()), encoding="utf-8")
    record = ReportRecord(summary=f"{data.verdict.state}: {context.path('report.html')}")
    # The numbers of this run stand in both files, so their bytes differ between runs.
    return StageOutput(record, unhashed={"report.html": page, "report.json": plain})


def pictures(context: Context, data: ReportData) -> dict[str, str]:
    """Worst samples of the comparison as small data URLs by identity, and what a task drew of them by its names.

    Data that are no pictures have none.
    """
    from csa_deploy.report.pictures import thumbnails

    identities = [sample.id for found in data.worst for sample in found.samples]
    found = thumbnails(context.dataset(context.preprocessing), list(dict.fromkeys(identities))) if identities else {}
    return {**found, **task_views(context.workspace)[1]}
