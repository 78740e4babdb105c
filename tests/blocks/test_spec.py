"""The one parser of block specifications."""

import pytest
from torch import nn

from ccsa.blocks import CrissCross, SqueezeExcitation
from ccsa.blocks.spec import BlockSpec, build_blocks, parse_block_spec
from ccsa.errors import UserError


def test_parse_inside_a_head():
    spec = parse_block_spec({"block": "CrissCross", "recurrence": 3})
    assert spec == BlockSpec("CrissCross", {"recurrence": 3})
    assert parse_block_spec(spec) is spec
    assert spec.build(16).recurrence == 3


def test_parse_a_placed_block():
    spec = parse_block_spec(
        {"at": "res4.-2", "block": "CrissCross", "channels": 8, "reduction": 4}, placed=True
    )
    assert spec == BlockSpec("CrissCross", {"reduction": 4}, "res4.-2", 8)


def test_parsing_does_not_change_the_mapping():
    mapping = {"at": "res4", "block": "CrissCross", "channels": 8}
    parse_block_spec(mapping, placed=True)
    assert mapping == {"at": "res4", "block": "CrissCross", "channels": 8}


@pytest.mark.parametrize(
    ("spec", "placed", "message"),
    [
        ("CrissCross", False, "is a mapping {block: name, ...}, not 'CrissCross'"),
        ({}, False, "needs 'block'"),
        ({"block": 3}, False, "needs 'block'"),
        ({"block": "CrissCross", 3: 4}, False, "is a mapping"),
        ({"block": "CrissCross", "channels": 8}, False, "'channels' is set by the head"),
        (["res4"], True, "is a mapping {at: module path, block: name, ...}"),
        ({"block": "CrissCross"}, True, "needs 'at'"),
        ({"at": "", "block": "CrissCross"}, True, "needs 'at'"),
        ({"at": "res4"}, True, "and 'block'"),
        ({"at": "res4", "block": "CrissCross", "channels": 0}, True, "positive integer, not 0"),
        ({"at": "res4", "block": "CrissCross", "channels": True}, True, "positive integer"),
        ({"at": "res4", "block": "CrissCross", "channels": "8"}, True, "positive integer, not '8'"),
    ],
)
def test_a_wrong_specification_is_rejected(spec, placed, message):
    with pytest.raises(UserError) as error:
        parse_block_spec(spec, placed=placed)
    assert message in str(error.value)


def test_build_blocks():
    assert isinstance(build_blocks(16, []), nn.Identity)
    assert isinstance(build_blocks(16, [{"block": "CrissCross"}]), CrissCross)
    chain = build_blocks(16, [{"block": "CrissCross"}, {"block": "SqueezeExcitation"}])
    assert [type(block) for block in chain] == [CrissCross, SqueezeExcitation]


def test_an_unknown_keyword_is_named():
    with pytest.raises(UserError, match="recurrance"):
        build_blocks(16, [{"block": "CrissCross", "recurrance": 2}])
