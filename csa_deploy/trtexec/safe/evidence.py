"""What a safety build has shown, read in its log, and why it shows no more."""

from __future__ import annotations

from csa_deploy.trtexec.safe.options import why_no_consistency, why_no_reference
from csa_deploy.trtexec.versions import Version

REFERENCE_PASSED = "csa-deploy: the reference checker passed"
REFERENCE_REFUSED = "NVIDIA's reference checker refuses the engine"
_CONSISTENT = "Consistency validation passed."


def evidence_of(log: str, version: Version, listed: frozenset[str], *, on_host: bool) -> tuple[str, str]:
    """The level that a safety build reached, and why not the next.

    Args:
        log: of the build, and of the checker after it.
        listed: options of its help page.
        on_host: whether a host built, which asks every checker that there is.
    """
    if _CONSISTENT not in log:
        why = why_no_consistency(version, listed) or (
            "its log says nothing of the check" if on_host else "not asked for (--builder-option consistency)"
        )
        return "safety-build", why
    if REFERENCE_PASSED in log:
        return "reference-checked", ""
    why = why_no_reference(version, listed)
    return "consistency-checked", why or "the reference checker needs a build on a host (build: host)"
