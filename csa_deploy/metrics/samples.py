"""What is kept of one sample of an output: the functions that the entries of the table share.

All is computed in float64 on one sample at a time; what is kept is a few numbers, so memory does not grow with the size
of an output.
"""

from __future__ import annotations

import math

import numpy as np

from csa_deploy.metrics.distance import cosine, snr
from csa_deploy.metrics.metric import Pair, Row

TOP = 5

_SPOILT: Row = {
    "finite": 0.0,
    "max_abs_error": math.inf,
    "mean_abs_error": math.inf,
    "mean_abs_reference": math.nan,
    "cosine": math.nan,
    "signal": math.nan,
    "noise": math.inf,
    "snr_db": -math.inf,
    "low": math.nan,
    "high": math.nan,
}


def errors(pair: Pair) -> Row:
    """Distances of the values, and the reference's range and energy."""
    if not pair.finite:
        return {**_SPOILT, "reference_finite": float(pair.right)}
    want, got = pair.want.ravel(), pair.got.ravel()
    error = np.abs(want - got)
    signal, noise = float(want @ want), float(error @ error)
    return {
        "finite": 1.0,
        "max_abs_error": float(error.max(initial=0.0)),
        "mean_abs_error": float(error.mean()),
        "mean_abs_reference": float(np.abs(want).mean()),
        "cosine": cosine(want, got),
        "signal": signal,
        "noise": noise,
        "snr_db": snr(signal, noise),
        "low": float(want.min()),
        "high": float(want.max()),
        "reference_finite": 1.0,
    }


def ranking(pair: Pair) -> Row:
    """Classes of one sample; ties are ranked by class. A spoilt output has no class, and agrees with nothing."""
    want, got, finite = pair.want, pair.got, pair.finite
    first, second = (np.argsort(-a, kind="stable")[:TOP] for a in (want, got))
    ours, theirs = (_log_softmax(a) if np.isfinite(a).all() else np.full(len(a), math.nan) for a in (want, got))
    row: Row = {
        "reference_class": float(first[0]),
        "class": float(second[0]) if finite else math.nan,
        "agrees": float(finite and first[0] == second[0]),
        "kl_divergence": _divergence(ours, theirs) if finite else math.inf,
        "reference_classes": first.astype(np.float64),
        "reference_probabilities": np.exp(ours[first]),
        "classes": second.astype(np.float64),
        "probabilities": np.exp(theirs[second]),
    }
    tops = (1, TOP) if len(want) > TOP else (1,)
    if TOP in tops:
        row["agrees_top5"] = float(finite and first[0] in second)
    label = int(pair.target) if isinstance(pair.target, int | np.integer) else None
    for k in tops if label is not None else ():
        row[f"reference_top{k}"] = float(label in first[:k])
        row[f"top{k}"] = float(finite and label in second[:k])
    return row


def positions(pair: Pair) -> Row:
    """Agreement of the class at each position, and mean intersection over union of the classes seen.

    The class is the strongest channel; of a single channel whether the threshold is reached.
    """
    if not pair.finite:
        return {"pixel_agreement": 0.0, "mean_iou": 0.0}
    sides = (pair.want, pair.got)
    if len(pair.want) == 1:
        first, second = ((side.ravel() >= pair.threshold).astype(np.int64) for side in sides)
    else:
        first, second = (side.argmax(axis=0).ravel() for side in sides)
    channels = max(2, len(pair.want))
    hits = np.bincount(first[first == second], minlength=channels)
    union = np.bincount(first, minlength=channels) + np.bincount(second, minlength=channels) - hits
    return {
        "pixel_agreement": float((first == second).mean()),
        "mean_iou": float((hits[union > 0] / union[union > 0]).mean()),
    }


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Kullback-Leibler divergence of the second softmax from the first, in nats; both as logarithms."""
    return max(0.0, float((np.exp(first) * (first - second)).sum()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - math.log(float(np.exp(shifted).sum())))
