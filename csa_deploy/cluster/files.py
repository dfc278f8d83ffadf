"""Files that travel with a job, and the data of one in a worker's folder."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from pathlib import Path

from csa_deploy.cluster.worker import Local
from csa_deploy.data.arrays import ArrayDataset
from csa_deploy.data.base import Dataset
from csa_deploy.graph.load import external_files


def travelling(files: Iterable[Path | None], datasets: Iterable[Dataset] = ()) -> tuple[Path, ...]:
    """Absolute paths of files, of the weights that lie beside graphs, and of arrays; images do not travel."""
    found = [file.absolute() for file in files if file is not None]
    found += [file for graph in found if graph.suffix == ".onnx" for file in external_files(graph).values()]
    found += [data.path.absolute() for data in datasets if isinstance(data, ArrayDataset)]
    return tuple(dict.fromkeys(found))


def at(data: Dataset, local: Local) -> Dataset:
    """A data set whose arrays are read from a worker's folder; images are read where they are."""
    if isinstance(data, ArrayDataset):
        data = copy(data)
        data.path = local(data.path)
    return data
