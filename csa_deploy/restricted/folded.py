"""A graph with its constants computed ahead, as the optimizer does it: judged instead of an exporter's raw one."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def fold_file(path: Path, folder: Path) -> tuple[Path, str]:
    """Fold the constants of an ONNX file into a new one in ``folder``.

    Returns:
        The file to judge and its name for people; the given file as it is when it cannot be folded.
    """
    import onnx_ir as ir

    from csa_deploy.graph.load import load_model, save_model
    from csa_deploy.graph.rules import constants
    from csa_deploy.graph.shapes import editable, infer_shapes

    try:
        model = editable(load_model(path, full_check=False))
        infer_shapes(model)
        while constants.RULE.apply(model):
            infer_shapes(model)
        folded = folder / path.name
        save_model(ir.to_proto(model), folded)
    except Exception as error:  # whatever a library makes of a broken graph: then it is judged as it is
        log.debug("folding %s: %s", path, error)
        return path, path.name
    return folded, f"{path.name}, constants folded"
