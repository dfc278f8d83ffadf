"""A process that reads one damaged file after another as the command line does, and tells what came of it.

One line in: verb and path. One line out: JSON with ``outcome`` (``done``, an exit code, or ``internal``), ``detail``,
``seconds`` (of processor
time) and ``peak`` (bytes, of this process and of any that it started for the file).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

from csa_deploy.errors import EXIT_INTERNAL, CsaDeployError
from csa_deploy.memory import peak_memory

ADDRESS_SPACE = 12 * 2**30
"""More than any reader may take; what goes beyond is a failed allocation here and not the machine's end."""


def check(path: Path) -> None:
    """Judge it by two scopes and render one report; which ones depends on the file: all take three times as long."""
    from csa_deploy.restricted.check import check
    from csa_deploy.restricted.inspection import GateResult, ScopeVerdict, rejection
    from csa_deploy.restricted.reporters.formats import FORMATS, render
    from csa_deploy.restricted.schema import scopes

    names, forms, turn = sorted(scopes()), sorted(FORMATS), zlib.crc32(path.read_bytes())
    report = check(path, [names[turn % len(names)], names[(turn + 3) % len(names)]])
    result = GateResult(report, tuple(ScopeVerdict(scope) for scope in report.scopes))
    render(result.inspected, forms[turn % len(forms)])
    rejection(result, True, path.name)


def inspect(path: Path) -> None:
    from csa_deploy.inspection.describe import describe
    from csa_deploy.workspace import dump_json

    dump_json(describe(path))


def diff(path: Path) -> None:
    from csa_deploy.inspection.difference import compare
    from csa_deploy.workspace import dump_json

    dump_json(compare(path, path).to_json())


def fingerprint(path: Path) -> None:
    from csa_deploy.source import load_source

    load_source(str(path)).fingerprint()


def optimize(path: Path) -> None:
    from csa_deploy.graph.load import load_model
    from csa_deploy.graph.optimize import optimize

    optimize(load_model(path))


def repair(path: Path) -> None:
    from csa_deploy.graph.load import load_model
    from csa_deploy.graph.repair import repair

    repair(load_model(path, full_check=False))


def extract(path: Path) -> None:
    from csa_deploy.graph.extract import extract
    from csa_deploy.graph.load import load_model
    from csa_deploy.graph.scopes import module_paths

    model = load_model(path, full_check=False)
    for around in list(module_paths(model).values())[:1]:
        extract(model, around[-1] if around else "none")


VERBS: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (check, inspect, diff, fingerprint, optimize, repair, extract)
}


def answer(verb: str, path: Path) -> dict[str, object]:
    start = sum(os.times()[:4])
    outcome, detail = "done", ""
    try:
        VERBS[verb](path)
    except CsaDeployError as error:
        outcome, detail = str(error.exit_code), str(error)
        if "\n" in detail or error.exit_code == EXIT_INTERNAL:
            outcome = "internal"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "internal"
        detail = f"{type(error).__name__}: {str(error)[:200]} in {Path(last.filename).name}:{last.lineno} {last.name}"
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    seconds = round(sum(os.times()[:4]) - start, 2)
    return {"outcome": outcome, "detail": detail, "seconds": seconds, "peak": max(peak_memory(), children)}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        verb, _, path = line.rstrip("\n").partition(" ")
        answers.write(json.dumps(answer(verb, Path(path))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
