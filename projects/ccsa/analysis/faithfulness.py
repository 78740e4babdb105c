"""Whether a model uses the positions that it attends to.

The most attended positions of a region are replaced by the mean of the dataset, and its score is
compared with the score after random positions were replaced (a deletion test).

Dimensions: S spatial size (h, w) of a feature map, (H, W) of the model's input in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccsa.errors import UserError

FLOOR = 1e-3
"""The smallest effect of random positions that the ratio divides by."""


@dataclass(frozen=True)
class Deletion:
    """The scores of a region, each from 0 to 1.

    Attributes:
        score: for the unchanged input.
        attended: after the most attended positions were replaced.
        random: after random positions were replaced, for each draw.
    """

    score: float
    attended: float
    random: tuple[float, ...]

    @property
    def attended_drop(self) -> float:
        """How much the attended positions lower the score."""
        return self.score - self.attended

    @property
    def random_drop(self) -> float:
        """How much random positions lower the score, the mean over draws."""
        return self.score - sum(self.random) / len(self.random)

    @property
    def ratio(self) -> float:
        """The drop of attended positions in multiples of that of random ones; see FLOOR."""
        return self.attended_drop / max(self.random_drop, FLOOR)


def most_attended(attention: Tensor, share: float = 0.05) -> Tensor:
    """Return a mask of the given share of positions with the largest attention, both of shape
    (h, w), or (T, h, w) for clips.

    The number of positions is rounded up, so it is at least 1.

    Raises:
        UserError: the share is not above 0 and at most 1.

    Example:
        >>> most_attended(torch.tensor([[0.1, 0.7], [0.2, 0.0]]), 0.5).int().tolist()
        [[0, 1], [1, 0]]
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of positions must be above 0 and at most 1, not {share}")
    count = -int(-share * attention.numel() // 1)
    mask = torch.zeros(attention.numel(), dtype=torch.bool)
    mask[attention.flatten().topk(count).indices.cpu()] = True
    return mask.reshape(attention.shape)


def random_positions(mask: Tensor, draws: int, seed: int = 0) -> list[Tensor]:
    """Return ``draws`` random masks with the shape and the number of positions of ``mask``."""
    generator = torch.Generator().manual_seed(seed)
    count, drawn = int(mask.sum()), []
    for _ in range(draws):
        random = torch.zeros(mask.numel(), dtype=torch.bool)
        random[torch.randperm(mask.numel(), generator=generator)[:count]] = True
        drawn.append(random.reshape(mask.shape))
    return drawn


def replaced(
    image: Tensor, mask: Tensor, fill: Tensor, covered: Sequence[int] | None = None
) -> Tensor:
    """Return an image whose pixels at the masked positions are replaced.

    Args:
        image: (C, H, W), or (T, C, H, W) of which every frame is changed.
        mask: (h, w), the positions of a feature map, or (T, h, w), those of each frame.
        fill: (C,), the new values, for instance the mean of the dataset.
        covered: the height and width in pixels that the feature map covers, if the model pads the
            image at the bottom and on the right; by default those of the image.
    """
    size = tuple(covered or image.shape[-2:])
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    pixels = torch.nn.functional.interpolate(planes, size, mode="nearest-exact")
    where = pixels[..., : image.shape[-2], : image.shape[-1]] > 0.5  # (1 or T, 1, H, W)
    where = where if mask.ndim == 3 else where[0]
    return torch.where(where.to(image.device), fill.to(image)[:, None, None], image)


def deletion(
    score: Callable[[Tensor | None], float], attended: Tensor, draws: int = 20, seed: int = 0
) -> Deletion:
    """Compare the effect of attended and of random positions on a score.

    Args:
        score: returns the score after the positions of a mask (h, w) were replaced, or of the
            unchanged input for None.
        attended: a mask (h, w) or (T, h, w), see :func:`most_attended`.
        draws: the number of random masks.
        seed: the seed of the random masks.
    """
    random = tuple(score(mask) for mask in random_positions(attended, draws, seed))
    return Deletion(score(None), score(attended), random)
