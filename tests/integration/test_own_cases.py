"""Two iterations, evaluation and the final picture on the cases that failed at the end of a run."""

import pytest
from support.run_tools import train

SHORT = ("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "config", "options"),
    [
        ("own_panoptic_without_metadata", "panoptic_fpn", ()),
        ("boxes_without_polygons_mask_off", "mask_rcnn", ("MODEL.MASK_ON", False)),
        ("image_with_crowds_alone", "mask_rcnn", ("INPUT.CROP.ENABLED", True)),
    ],
)
def test_a_run_ends_with_results_and_a_picture(root, tmp_path, case, config, options):
    data = root / "tests/vectors/own_data" / case
    words = ("--data", data, "OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cpu")
    out = train(root, tmp_path, *words, *SHORT, *options, config=f"configs/own/{config}.yaml")
    assert "results:" in out and "predictions:" in out
    assert (tmp_path / "run/predictions.png").exists()
