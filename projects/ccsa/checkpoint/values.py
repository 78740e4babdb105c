"""Whether the values of trained tensors can be right."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ccsa.checkpoint.load_report import grouped

_STATISTICS = ("running_mean", "running_var", "weight", "bias")  # the last two of FrozenBN
_VARIANCE = "running_var"


def value_problem(tensors: Mapping[str, Tensor | np.ndarray]) -> str:
    """Return what is wrong with the values of trained tensors, or an empty string.

    Values must be finite as float32, and the running variances of batch norms must not be negative,
    because their square roots would be NaN.

    Example:
        >>> value_problem({"weight": torch.ones(2), "bias": torch.tensor([1, float("nan")])})
        '1 of its tensors has NaN or infinity: bias'
    """
    # Tensors on the device meta have no values.
    given = {name: torch.as_tensor(value) for name, value in tensors.items()}
    given = {name: tensor for name, tensor in given.items() if not tensor.is_meta}
    problems = {
        "NaN or infinity": [name for name, t in given.items() if not _single(t).isfinite().all()],
        "negative variances": [
            name for name, t in given.items() if name.endswith(_VARIANCE) and (t < 0).any()
        ],
    }
    for what, names in problems.items():
        if names:
            verb = "has" if len(names) == 1 else "have"
            listed = ", ".join(grouped(names, most=3))
            return f"{len(names)} of its tensors {verb} {what}: {listed}"
    return ""


def _single(tensor: Tensor) -> Tensor:
    """Return the values that a model in float32 would have."""
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def trained_values(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a model and the statistics of its norms, by name. Other buffers,
    such as masks, may be infinite."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] in _STATISTICS:
            values[name] = buffer
    return values
