"""The base class of the blocks: a gate that makes a new block an identity."""

import torch
from torch import Tensor, nn

from ccsa.errors import UserError, true_or_false

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
"""Convolutions by number of spatial axes."""


MOST_CHANNELS = 2**16
"""The largest width, and therefore reduction, that a block accepts."""


class GatedBlock(nn.Module):
    """A block that computes x + gamma * context(x), where gamma is a scalar that starts at 0.

    A pretrained network therefore keeps its features until training opens the gate. In the
    non-residual form, the block computes context(x) and has no gamma.

    A subclass implements :meth:`context`. It may override :meth:`gate` with a faster computation of
    the same result, and set ``recurrence`` to apply the gate several times.

    The output has the dtype and, with the gate, the shape of x. This holds under autocast too,
    where gamma is float32 and would otherwise promote half-precision features.

    Args:
        residual: False for the non-residual form.

    Raises:
        UserError: ``residual`` is not a bool.

    Example:
        >>> class Mean(GatedBlock):
        ...     def context(self, x):
        ...         return x.mean((2, 3), keepdim=True).expand_as(x)
        >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> block = Mean()
        >>> torch.equal(block(x), x)  # gamma is 0
        True
        >>> _ = nn.init.ones_(block.gamma)
        >>> block(x).flatten().tolist()
        [1.5, 2.5, 3.5, 4.5]
    """

    channels: int | None = None
    """The number of channels C that x must have; None if a subclass does not set it."""

    recurrence: int = 1
    """How many times the gate is applied, always with the same weights."""

    needs_positions: bool = True
    """Whether a feature map of size 0 is rejected; an empty batch never is."""

    def __init__(self, residual: bool = True):
        super().__init__()
        true_or_false(residual=residual)
        self.gamma = nn.Parameter(torch.zeros(1)) if residual else None

    def context(self, x: Tensor) -> Tensor:
        """Return what the block adds to x before it is scaled by gamma.

        Args:
            x: (B, C, *spatial).

        Returns:
            (B, C, *spatial).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement context()")

    def gate(self, x: Tensor) -> Tensor:
        """Return x + gamma * context(x), or context(x) in the non-residual form.

        Args:
            x: (B, C, *spatial).

        Returns:
            (B, C, *spatial) with the dtype of x.
        """
        y = self.context(x).to(x.dtype)
        if self.gamma is None:
            return y
        return torch.addcmul(x, y, self.gamma.to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the gate ``recurrence`` times.

        Args:
            x: (B, C, *spatial).

        Returns:
            (B, C, *spatial) with the dtype of x.

        Raises:
            UserError: x is not floating point, has another number of channels than the block was
                built for, or has no positions and the block cannot compute without any.
        """
        # A trace would make constants of the comparisons, and warn about them.
        if isinstance(x, Tensor) and not torch.jit.is_tracing():
            self._check(x)
        for _ in range(self.recurrence):
            x = self.gate(x)
        return x

    def _check(self, x: Tensor) -> None:
        """Raise a UserError unless the block can compute x."""
        name = type(self).__name__
        if not x.is_floating_point():
            raise UserError(
                f"{name} computes floating-point features, but x is {x.dtype}; convert it, for "
                "instance by x.float()"
            )
        if self.channels is not None and x.dim() > 1 and x.shape[1] != self.channels:
            raise UserError(
                f"{name} was built for {self.channels} channels, but x has {x.shape[1]}"
            )
        # The sizes of compiled and exported programs are not looked at: they would be specialized.
        if self.needs_positions and not torch.compiler.is_compiling() and 0 in x.shape[2:]:
            raise UserError(
                f"{name} needs at least one position, but x is {tuple(x.shape)}; only the batch "
                "may be empty"
            )
