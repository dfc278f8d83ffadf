"""Reads the load generator's logs: results and settings in force, latencies of each query, outputs that it kept."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.records.loadgen import OutputsCheck
from csa_deploy.spec import TensorSpec
from csa_deploy.units import counted

SUMMARY_LOG, DETAIL_LOG = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
ACCURACY_LOG, TRACE_LOG = "mlperf_log_accuracy.json", "mlperf_log_trace.json"
_MARK = ":::MLLOG "
_LAST = {"accuracy": "power_end", "performance": "result_99.90_percentile_latency_ns"}
MOST_UNITS = 4.0
"""Of a difference between two runs of the same inference, in units of the type's precision: sums in another order."""


@dataclass(frozen=True)
class Detail:
    """The detailed log.

    Attributes:
        values: by key; of one that stands several times the last.
        errors: that the load generator reports.
    """

    values: dict[str, Any]
    errors: tuple[str, ...]


def unfinished(path: Path, why: str) -> UsageError:
    """The error of a log that cannot be taken for a result."""
    return UsageError(f"{path}: {why}", fix="measure again, where the disk has space for the load generator's logs")


def read_detail(folder: Path, *, mode: Literal["accuracy", "performance"]) -> Detail:
    """The detailed log of a run.

    Args:
        folder: of the logs.
        mode: of the run; of a timed one the log ends later.

    Raises:
        UsageError: it is missing, or was not finished.
    """
    path = folder / DETAIL_LOG
    values: dict[str, Any] = {}
    errors = []
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            event = json.loads(line.removeprefix(_MARK), strict=False)
            values[event["key"]] = event["value"]
            if event["metadata"]["is_error"]:
                errors.append(f"{event['key']}: {event['value']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unfinished(path, f"no log of the load generator ({error})") from None
    if _LAST[mode] not in values:
        raise unfinished(path, "the load generator did not end its log")
    return Detail(values, tuple(errors))


@dataclass(frozen=True)
class Queries:
    """Every query of a run in order, nanoseconds by the load generator's clock.

    Attributes:
        issued: when it began: was due, where the load generator keeps a schedule; else was sent.
        latency: from then until its answer.
    """

    issued: np.ndarray
    latency: np.ndarray

    def since_due(self, frame_ns: int) -> np.ndarray:
        """Latencies of a stream whose frame ``i`` was due ``i`` frame times after the first."""
        return self.issued + self.latency - (self.issued[0] + frame_ns * np.arange(len(self.issued)))


def pack_trace(folder: Path) -> None:
    """Compress the trace: it has several kilobytes a query, most of them about the load generator's own threads."""
    path = folder / TRACE_LOG
    with path.open("rb") as source, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(source, packed)
    path.unlink()


def read_queries(folder: Path, count: int) -> Queries:
    """The trace of a run with one sample per query.

    Args:
        folder: of the logs.
        count: of the queries, as the detailed log has it.

    Raises:
        UsageError: it is missing, or holds other than ``count`` queries.
    """
    path, rows = folder / f"{TRACE_LOG}.gz", []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith('{"name":"Sample",') and '"ph":"b"' in line:
                    event = json.loads(line.rstrip().rstrip(","))
                    rows.append((event["args"]["sample_seq"], round(event["ts"] * 1e3), event["args"]["complete_ns"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise unfinished(path, f"no trace of the load generator ({error})") from None
    if len(rows) != count:
        raise unfinished(path, f"holds {counted(len(rows), 'frame')}, the load generator sent {count:,}")
    rows.sort()
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Queries(table[:, 1], table[:, 2])


def read_outputs(folder: Path, least: int = 0) -> list[tuple[int, bytes]]:
    """Sample and output of each inference that the load generator kept.

    Args:
        folder: of the logs.
        least: how many there must be.

    Raises:
        UsageError: the log is missing, was not finished, or holds fewer.
    """
    path = folder / ACCURACY_LOG
    try:
        kept = json.loads(path.read_text(encoding="utf-8").strip() or "[]")
        found = [(item["qsl_idx"], bytes.fromhex(item["data"])) for item in kept]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unfinished(path, f"no outputs of the load generator ({error})") from None
    if len(found) < least:
        raise unfinished(path, f"holds {counted(len(found), 'output')} of {least:,}")
    return found


def compare_outputs(accuracy: Path, performance: Path, outputs: Sequence[TensorSpec], samples: int = 0) -> OutputsCheck:
    """Hold what was kept of the timed run against the accuracy mode's outputs of the same samples.

    Args:
        accuracy: folder of the accuracy mode's logs.
        performance: of the timed run's.
        outputs: of the network; an inference's data are theirs, one after another.
        samples: that the accuracy mode sent.

    Raises:
        UsageError: a log is missing or was not finished.
    """
    expected = dict(read_outputs(accuracy, samples))
    kept = read_outputs(performance)
    identical, largest = 0, 0.0
    for sample, data in kept:
        if data == expected.get(sample):
            identical += 1
        else:
            largest = max(largest, _difference(expected.get(sample, b""), data, outputs))
    return OutputsCheck(len(kept), identical, largest if np.isfinite(largest) else None, MOST_UNITS)


def _difference(expected: bytes, found: bytes, outputs: Sequence[TensorSpec]) -> float:
    """See :attr:`OutputsCheck.difference`; infinite where it is None."""
    if len(expected) != len(found) or sum(_bytes(spec) for spec in outputs) != len(found):
        return float("inf")
    start, largest = 0, 0.0
    for spec in outputs:
        end = start + _bytes(spec)
        a, b = (np.frombuffer(data[start:end], spec.dtype) for data in (expected, found))
        start = end
        if a.tobytes() == b.tobytes():
            continue
        if a.dtype.kind != "f" or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("inf")
        unit = float(np.finfo(a.dtype).eps) * float(np.abs(a).max())
        apart = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        largest = max(largest, apart / unit if unit else float("inf") if apart else 0.0)
    return largest


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.static_shape)) * np.dtype(spec.dtype).itemsize
