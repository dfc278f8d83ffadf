"""Where the error of a graph comes from, module by module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModuleError:
    """What one module does to a network's error.

    Attributes:
        module: path of the PyTorch module.
        error_in: largest relative error of what comes in, in the candidate as it is.
        error_out: the same of what goes out.
        error_added: relative error of what goes out when what comes in is right; infinite where it is broken.
        reason: what is wrong beyond an error: values that are not finite, another shape.
        restored_snr_db: signal-to-noise ratio of the network's outputs when this module alone computes as the
            reference does; None where that was not tried.
        clipped: largest share of values that quantization clips in what comes in; None if none of that is quantized.
        largest: largest absolute value of that tensor.
        limit: largest absolute value that its range holds.
    """

    module: str
    error_in: float
    error_out: float
    error_added: float
    reason: str = ""
    restored_snr_db: float | None = None
    clipped: float | None = None
    largest: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Localization:
    """Where an error comes from.

    Attributes:
        compared_with: what it was compared with, module by module.
        samples: identities of the samples; the worst ones.
        snr_db: signal-to-noise ratio of the outputs on these samples.
        rows: modules, largest added error first.
        culprits: the fewest modules, taken in that order, that bring the outputs back into the budget; empty where
            no number of them does or none is needed.
        not_done: what was left out, and why.
        boundaries: of an engine, the tensors that its fusions leave, at which it was compared.
    """

    candidate: str
    compared_with: str
    samples: tuple[str, ...]
    snr_db: float | None
    rows: tuple[ModuleError, ...]
    culprits: tuple[str, ...]
    statement: str
    not_done: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
