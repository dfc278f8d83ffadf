"""``csa-deploy evaluate``: top-1 and top-5 on labelled data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags


@flags("evaluate")
def evaluate(
    console: Console,
    settings: dict[str, Any],
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="NETWORK", help="A network, a .onnx file, or an engine of a workspace.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure top-1 and top-5 accuracy.

    Of a PyTorch network, an ONNX graph or an engine, with the same preprocessing and the same count for each.
    """
    from csa_deploy.config import DEFAULT_NETWORK, make_config
    from csa_deploy.data.dataset import open_dataset
    from csa_deploy.errors import UsageError
    from csa_deploy.runners.base import sampling
    from csa_deploy.stages import Stage
    from csa_deploy.verify.evaluate import evaluate as measure
    from csa_deploy.verify.judging import one_class
    from csa_deploy.verify.subject import open_subject

    config = make_config({**settings, "network": network or DEFAULT_NETWORK})
    runner, preprocessing, own_data = open_subject(config)
    spec = config.data or own_data
    if spec is None:
        raise UsageError(f"{config.network}: evaluate needs labelled data", fix="name them with --data")
    data = open_dataset(spec, preprocessing, limit=config.samples, seed=config.seed)
    stage = Stage("evaluate", "accuracy on labels")
    with runner, console.watching() as watcher:
        watcher.started(stage)
        batch = sampling(runner).batch or config.batch or 1
        found = measure(runner, data, batch, lambda done, total: watcher.progress(stage, done, total))
        described = runner.describe()
    result = {
        "schema_version": 1,
        "network": config.network,
        "data": {"name": data.name, "sha256": data.fingerprint()},
        "runner": described,
        "notes": one_class(data.labels),
        **found.to_json(),
    }
    console.answer.add(result)
    _show(result, console)


def _show(result: dict[str, Any], console: Console) -> None:
    from csa_deploy.units import percent

    for k in (1, 5):
        if top := result.get(f"top{k}"):
            low, high = top["interval"]
            said = f"top-{k} {percent(top['value'])}  (95 % interval {percent(low)} to {percent(high)})"
            console.out.print(said, highlight=False)
    runner = result["runner"]
    console.out.print(
        f"{result['network']} on {result['samples']} samples of {result['data']['name']}, "
        f"{runner['backend']} {runner['version']}: {runner['executes']}",
        markup=False,
        soft_wrap=True,
    )
    for note in result["notes"]:
        console.out.print(f"[yellow]note[/yellow] {note}", soft_wrap=True)
    if result["not_finite"]:
        console.out.print(f"not finite on {len(result['not_finite'])} samples, such as {result['not_finite'][0]}")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("evaluate")(evaluate)
