"""The check of all values of a configuration, and of conditions on several of them."""

from detectron2.config import CfgNode

from ccsa.engine.model_parts import all_values, block_lists, read_blocks
from ccsa.engine.values import problem
from ccsa.engine.values.relations import RELATIONS
from ccsa.errors import UserError


def check_section(cfg: CfgNode, start: str = "") -> None:
    """Check the value of every key whose name begins with ``start``.

    Raises:
        UserError: the first value that is not valid, and how to fix it.
    """
    for key, value in all_values(cfg).items():
        wrong = problem(key, value, value) if key.startswith(start) else ""
        if wrong:
            raise UserError(f"{key} {wrong}")


def check_values(cfg: CfgNode) -> None:
    """Check the value of every key, and what several keys must fulfill together.

    Args:
        cfg: a configuration whose pixel constants are resolved.

    Raises:
        UserError: the first value that is not valid, and how to fix it.
    """
    check_section(cfg)
    for key in block_lists(cfg):
        read_blocks(cfg, key)
    for relation in RELATIONS:
        sentence = relation(cfg)
        if sentence:
            raise UserError(sentence)
