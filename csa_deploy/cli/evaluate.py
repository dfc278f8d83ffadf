"""``csa-deploy evaluate``: top-1 and top-5, mean IoU, mAP or one's own metric on labelled data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.verify.evaluate import Evaluation

REMEMBERED = ("checkpoint", "checkpoint_key", "size", "batch")
"""Of the workspace's settings those that decide what the network is."""


@flags("evaluate")
def evaluate(
    console: Console,
    settings: dict[str, Any],
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="NETWORK",
            help="A network, a .onnx file, or an engine or records/split.json of a workspace.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure accuracy: top-1 and top-5, mean IoU, mAP, or a metric of yours.

    Of a PyTorch network, an ONNX graph or an engine, with the same preprocessing and the same count for each. Without
    --checkpoint it takes the weights that the network's workspace remembers; exit 6 where there are none and the
    accuracy is that of guessing, and where a sample gives something else in another batch.
    """
    from csa_deploy.cli.session import default_root
    from csa_deploy.cluster.connection import require_cluster
    from csa_deploy.config import DEFAULT_NETWORK
    from csa_deploy.data.dataset import open_dataset
    from csa_deploy.errors import AccuracyGateError, UsageError
    from csa_deploy.stages import Activity
    from csa_deploy.units import percent
    from csa_deploy.verify.evaluation import evaluate_subject
    from csa_deploy.verify.judging import batch_failure, one_class
    from csa_deploy.verify.subject import open_subject

    config, untrained = _configured(network or DEFAULT_NETWORK, settings)
    require_cluster(config.cluster)
    subject = open_subject(config)
    spec = config.data or subject.dataset
    if spec is None:
        raise UsageError(f"{config.network}: evaluate needs labelled data", fix="name them with --data")
    config = config.model_copy(update={"task": config.task or subject.task})
    sequences = bool(config.state)
    data = open_dataset(
        spec, subject.preprocessing, limit=config.samples, seed=config.seed, task=config.task, sequences=sequences
    )
    config = config.model_copy(update={"task": config.task or data.task})
    stage = Activity("evaluate", "accuracy on labels")
    root = Path(settings.get("workspace") or default_root(config.network)) if config.cluster else Path()
    with subject.runner, console.watching() as watcher:
        watcher.started(stage)
        found = evaluate_subject(config, subject, data, root, lambda *given: watcher.progress(stage, *given))
        described = subject.runner.describe()
    notes = [*one_class(data.labels), *data.notes, *([untrained] if untrained else [])]
    console.answer.add(
        {
            "schema_version": 1,
            "network": config.network,
            "data": {"name": data.name, "sha256": data.fingerprint()},
            "runner": described,
            "checkpoint": config.checkpoint,
            "trained": None if untrained is None else not untrained,
            "notes": notes,
            **found.to_json(),
        }
    )
    _show(found, console)
    say = partial(console.out.print, markup=False, soft_wrap=True)
    ran = f"{described['backend']} {described['version']}: {described['executes']}"
    say(f"{config.network} on {found.samples} samples of {data.name}, {ran}")
    if config.checkpoint:
        say(f"weights: {config.checkpoint}")
    for note in notes:
        console.out.print(f"[yellow]note[/yellow] {note}", soft_wrap=True)
    say(f"batch {found.batch.batch}: {found.batch.statement}")
    if found.not_finite:
        console.out.print(f"not finite on {len(found.not_finite)} samples, such as {found.not_finite[0]}")
    if found.batch.broken:
        raise batch_failure(config.network, found.batch)
    accuracy = found.accuracy
    if untrained and accuracy and accuracy.interval(1)[0] <= 1 / accuracy.classes:
        raise AccuracyGateError(
            f"{config.network}: {untrained}; {percent(accuracy.share(1))} right is not shown to be better than "
            f"guessing ({percent(1 / accuracy.classes)})",
            fix="name the trained weights with --checkpoint",
        )


def _configured(network: str, settings: dict[str, Any]) -> tuple[Config, str | None]:
    """The configuration, with the weights and the shape that the network's workspace remembers, as for the stages.

    Returns:
        The configuration, and why its weights are not known to be trained: empty where they are, None where nobody
        can tell, because a graph or an engine holds them.
    """
    from csa_deploy.cli.session import default_root, stored_settings
    from csa_deploy.config import make_config
    from csa_deploy.source import load_source
    from csa_deploy.verify.subject import BUILT

    given = {**settings, "network": network}
    if Path(network).suffix in (".onnx", *BUILT):
        return make_config(given), None
    stored = stored_settings(Path(settings.get("workspace") or default_root(network)), network)
    if "checkpoint" in settings:  # another file's entry may have another name
        stored.pop("checkpoint_key", None)
    config = make_config({key: stored[key] for key in REMEMBERED if key in stored}, given)
    return config, load_source(network).untrained(config.checkpoint)


def _show(found: Evaluation, console: Console) -> None:
    """The numbers, each with its interval where it has one."""
    from csa_deploy.units import metric, percent

    if accuracy := found.accuracy:
        for k in accuracy.hits:
            low, high = accuracy.interval(k)
            said = f"top-{k} {percent(accuracy.share(k))}  (95 % interval {percent(low)} to {percent(high)})"
            console.out.print(said, highlight=False)
    for name, estimate in found.metrics.items():
        ends = estimate.interval
        between = f"  (95 % interval {' to '.join(metric(end, name) for end in ends)})" if ends else ""
        console.out.print(f"{name} {metric(estimate.value, name)}{between}", highlight=False)
    for row in (*found.by_size, *found.by_class):
        console.out.print(f"  {row.name}: {percent(row.value)}", highlight=False, markup=False)
