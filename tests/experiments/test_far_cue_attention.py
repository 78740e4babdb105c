"""The cue of an image of far_cue is found where it was drawn."""

import numpy as np
import torch

from ccsa.data.synthetic.far_cue import COLORS, CUE, SIZE, draw_corners, draw_image
from experiments.far_cue.attention import cells, find_cue


def test_the_cells_of_the_cue_are_found():
    for seed in range(20):
        image, labels = draw_image(np.random.default_rng(seed), "any")
        _, (row, column) = draw_corners(np.random.default_rng(seed), "any")
        expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        expected[row : row + CUE, column : column + CUE] = True
        pixels = torch.as_tensor(image).permute(2, 0, 1).float()
        assert torch.equal(find_cue(pixels, int(labels.max())), expected)
    assert len(COLORS) == 4


def test_cells_are_means():
    pixels = torch.zeros(8, 4)
    pixels[:2] = 1
    assert cells(pixels).tolist() == [[0.5], [0.0]]
