"""The settings of short runs whose parts are compared with the undisturbed run."""

SCHEDULE = (
    *("SOLVER.MAX_ITER", "11", "SOLVER.STEPS", "(7,)", "SOLVER.WARMUP_ITERS", "3"),
    *("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "6", "SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.001"),
)
SMALL = (
    "INPUT.MIN_SIZE_TRAIN",
    "(64,80)",
    "INPUT.MAX_SIZE_TRAIN",
    "96",
    "INPUT.MIN_SIZE_TEST",
    "64",
)
