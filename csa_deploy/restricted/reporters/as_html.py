"""The report as one HTML page without anything to load."""

from __future__ import annotations

from pathlib import Path

from csa_deploy import __version__
from csa_deploy.pages import html_templates
from csa_deploy.records.check import Inspected
from csa_deploy.restricted.reporters.grouping import crossing_line, grouped, parsed_line, since, some, validator_line

_PLACES = 8


def render(data: Inspected) -> str:
    """The report as a page; every text of the model is escaped."""
    template = html_templates(Path(__file__).parent).get_template("check.html.j2")
    groups = {scope.scope: grouped(scope.findings) for scope in data.scopes}
    return template.render(
        data=data,
        groups=groups,
        where=lambda places: some(places, _PLACES),
        since=since,
        crossing=crossing_line,
        validator=validator_line,
        parsed=parsed_line(data),
        version=__version__,
    )
