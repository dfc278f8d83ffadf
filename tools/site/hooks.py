"""What mkdocs asks while it builds the site; named in mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from tools.site.api import api_page
from tools.site.commands import command_pages, configuration_page, exit_codes_page
from tools.site.notebooks import notebook_pages
from tools.site.schemas import schema_pages
from tools.site.scopes import scope_pages

ROOT = Path(__file__).resolve().parents[2]


def generated() -> dict[str, str]:
    """Path below docs/ -> text of every page that is made while the site is built."""
    weights = (ROOT / "models" / "weights").glob("*.md")
    return {
        **command_pages(),
        **scope_pages(),
        **schema_pages(),
        **notebook_pages(),
        **{f"weights/{path.name}": _weights(path.read_text(encoding="utf-8")) for path in weights},
        "reference/api.md": api_page(),
        "reference/configuration-keys.md": configuration_page(),
        "reference/exit-codes.md": exit_codes_page(),
    }


def _weights(text: str) -> str:
    """The page of a checkpoint, which lies beside it: links into docs/ stay, of other files the words alone."""
    return re.sub(r"\[([^\]]+)\]\(\.\./\.\./(?!docs/)[^)]*\)", r"\1", text).replace("](../../docs/", "](../")


def on_config(config: Any) -> Any:
    """A folder in the navigation stands for the generated pages in it."""
    made = list(generated())
    for section in config["nav"]:
        for items in (found for found in section.values() if isinstance(found, list)):
            for item in (found for found in items if isinstance(found, dict)):
                ((title, path),) = item.items()
                if path.endswith("/"):
                    pages = sorted((p for p in made if p.startswith(path)), key=lambda p: not p.endswith("index.md"))
                    item[title] = [p if p.endswith("index.md") else {Path(p).stem: p} for p in pages]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that leave docs/ in a checkout stay in the site; a list needs no blank line in front of it."""
    text = markdown.replace("](../models/weights/", "](weights/")
    return re.sub(r"(?m)^(?![ \t]*(?:[-*|>#]|\d+\. ))(\S[^\n]*)\n(?=[-*] \S)", r"\1\n\n", text)


def on_post_page(output: str, **_: Any) -> str:
    """Names of the theme's search and of its nested navigation, which readers that do not see need."""
    named = output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
    return re.sub(r'aria-labelledby="__nav_(\w+)_label"( aria-expanded="\w+")?', r'aria-label="Pages \1"', named)


def on_post_build(config: Any) -> None:
    """Markdown beside each page, and llms.txt, for readers that are programs."""
    site, docs = Path(config["site_dir"]), Path(config["docs_dir"])
    texts = {str(path.relative_to(docs)): path.read_text(encoding="utf-8") for path in docs.rglob("*.md")}
    texts |= {path: text for path, text in generated().items() if path.endswith(".md")}
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", "", "## Pages", ""]
    for path, text in sorted(texts.items()):
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
        title = re.search(r"(?m)^# (.+)$", text)
        lines.append(f"- [{title[1] if title else path}]({path})")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
