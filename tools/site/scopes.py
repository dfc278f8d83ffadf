"""Reference pages of the safety scopes: every rule with its verdict, evidence and source."""

from __future__ import annotations

from csa_deploy.restricted.schema import Pack, Rule, load_pack, scopes
from csa_deploy.restricted.vocabulary import EVIDENCE
from tools.site.markdown import cell, code, page, table


def scope_pages() -> dict[str, str]:
    """Path -> page: one of each scope, and their list."""
    packs = [load_pack(name) for name in scopes()]
    pages = {f"reference/scopes/{pack.scope}.md": _scope(pack) for pack in packs}
    rows = [
        (f"[`{pack.scope}`]({pack.scope}.md)", cell(pack.title), pack.tensorrt, pack.kind.upper(), str(len(pack.rules)))
        for pack in packs
    ]
    pages["reference/scopes/index.md"] = page(
        "Safety scopes",
        "A scope is what one safety runtime takes. Each rule has a source. What the verdicts mean:",
        "[restricted mode](../../restricted.md#what-a-verdict-means).",
        table(("scope", "for", "TensorRT", "device", "rules"), rows),
        "## Evidence of a rule",
        table(("tag", "meaning"), [(code(tag), cell(meaning)) for tag, meaning in EVIDENCE.items()]),
    )
    return pages


def _scope(pack: Pack) -> str:
    default = "unknown" if pack.default == "unknown" else "denied"
    return page(
        pack.scope,
        f"{cell(pack.title)}. TensorRT {pack.tensorrt}. A layer that no rule speaks about is **{default}**.",
        *([f"**What this scope cannot tell:** {cell(pack.limits)}."] if pack.limits else []),
        f"`csa-deploy check NETWORK --scope {pack.scope}` asks it.",
        "`csa-deploy check --explain ID` shows all of a rule.",
        "## Rules",
        table(("rule", "layers", "verdict", "says", "instead", "evidence", "source"), map(_rule, pack.rules)),
    )


def _rule(rule: Rule) -> tuple[str, ...]:
    layers = ", ".join("every" if name == "*" else name for name in rule.layer)
    instead = "; ".join(filter(None, [rule.instead, f"repair {rule.repair}" if rule.repair else ""]))
    said = (rule.message, instead, rule.evidence, rule.source)
    return (code(rule.id), cell(layers), rule.verdict, *map(cell, said))
