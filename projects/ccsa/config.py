"""The keys that ccsa adds to Detectron2's configuration."""

from detectron2.config import CfgNode


def add_ccsa_config(cfg: CfgNode) -> None:
    """Add the keys of ccsa to ``cfg``, and Detectron2's own where ccsa's default differs."""
    # The device that is there: "cuda" where there is one, else "cpu". Naming one that is not there
    # is an error.
    cfg.MODEL.DEVICE = "auto"
    # Run the model in channels-last memory format: faster convolutions, and attention lines without
    # copies.
    cfg.MODEL.CHANNELS_LAST = False

    cfg.MODEL.CONTEXT = CfgNode()
    # With MODEL.META_ARCHITECTURE "ContextModel": the meta-architecture that is built and then
    # given the blocks.
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "GeneralizedRCNN"
    # A list of {at: module path, block: registered name, **keywords of the block}; see
    # docs/INSERTION.md.
    cfg.MODEL.CONTEXT.BLOCKS = []

    # Empty: a new numbered folder under output/<config>/ for each run.
    cfg.OUTPUT_DIR = ""
