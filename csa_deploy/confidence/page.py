"""The kit as one HTML file that prints on A4: nothing is fetched, nothing runs in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy import __version__
from csa_deploy.confidence.schema import CONFIDENCE_LEVELS
from csa_deploy.levels import LEVELS
from csa_deploy.pages import html_templates

if TYPE_CHECKING:
    from markupsafe import Markup

    from csa_deploy.confidence.kit import ConfidenceKit

_TEMPLATES = Path(__file__).parent / "templates"


def page_of_kit(kit: ConfidenceKit) -> str:
    """The page."""
    from markupsafe import Markup

    environment = html_templates(_TEMPLATES)
    environment.filters["said"] = said
    css = (_TEMPLATES / "kit.css").read_text(encoding="utf-8")
    return environment.get_template("kit.html.j2").render(
        kit=kit,
        c=kit.confidence,
        version=__version__,
        levels=LEVELS,
        table=CONFIDENCE_LEVELS,
        css=Markup(css),  # noqa: S704 (a file of the package)
    )


def said(text: Any) -> Markup:
    """Text with its ``code`` marked; the rest is escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped before)
