"""The keys of other codebases and the corresponding keys of ccsa, one table per codebase.

The entries are prefixes of keys; ``*`` matches a number. The entry of a norm precedes that of its
convolution, because in ccsa the key of a norm starts with the key of its convolution.
"""

import re

HEAD, AUXILIARY = "sem_seg_head", "sem_seg_head.auxiliary"
_RESIDUAL = [
    pair
    for layer, stage in (
        ("layer1", "res2"),
        ("layer2", "res3"),
        ("layer3", "res4"),
        ("layer4", "res5"),
    )
    for pair in (
        (f"{layer}.*.bn*.", f"backbone.{stage}.*.conv*.norm."),
        (f"{layer}.*.conv*.", f"backbone.{stage}.*.conv*."),
        (f"{layer}.*.downsample.1.", f"backbone.{stage}.*.shortcut.norm."),
        (f"{layer}.*.downsample.0.", f"backbone.{stage}.*.shortcut."),
    )
]
RULES: dict[str, list[tuple[str, str]]] = {
    "mmseg": [
        *((f"backbone.{old}", new) for old, new in _RESIDUAL),
        ("backbone.stem.1.", "backbone.stem.conv1.norm."),
        ("backbone.stem.0.", "backbone.stem.conv1."),
        ("backbone.stem.4.", "backbone.stem.conv2.norm."),
        ("backbone.stem.3.", "backbone.stem.conv2."),
        ("backbone.stem.7.", "backbone.stem.conv3.norm."),
        ("backbone.stem.6.", "backbone.stem.conv3."),
        ("backbone.bn1.", "backbone.stem.conv1.norm."),
        ("backbone.conv1.", "backbone.stem.conv1."),
        ("decode_head.convs.0.bn.", f"{HEAD}.reduction.norm."),
        ("decode_head.convs.0.conv.", f"{HEAD}.reduction."),
        ("decode_head.convs.1.bn.", f"{HEAD}.refine.norm."),
        ("decode_head.convs.1.conv.", f"{HEAD}.refine."),
        ("decode_head.conv_cat.bn.", f"{HEAD}.fusion.norm."),
        ("decode_head.conv_cat.conv.", f"{HEAD}.fusion."),
        ("decode_head.cca.gamma.scale", f"{HEAD}.attention.gamma"),
        ("decode_head.cca.", f"{HEAD}.attention."),
        ("decode_head.conv_seg.", f"{HEAD}.predictor."),
        ("auxiliary_head.convs.0.bn.", f"{AUXILIARY}.conv.norm."),
        ("auxiliary_head.convs.0.conv.", f"{AUXILIARY}.conv."),
        ("auxiliary_head.conv_seg.", f"{AUXILIARY}.predictor."),
    ],
    "ccnet": [
        *_RESIDUAL,
        ("bn*.", "backbone.stem.conv*.norm."),
        ("conv*.", "backbone.stem.conv*."),
        ("head.conva.1.", f"{HEAD}.reduction.norm."),
        ("head.conva.0.", f"{HEAD}.reduction."),
        ("head.cca.", f"{HEAD}.attention."),
        ("head.convb.1.", f"{HEAD}.refine.norm."),
        ("head.convb.0.", f"{HEAD}.refine."),
        ("head.bottleneck.1.", f"{HEAD}.fusion.norm."),
        ("head.bottleneck.0.", f"{HEAD}.fusion."),
        ("head.bottleneck.3.", f"{HEAD}.predictor."),
        ("dsn.1.", f"{AUXILIARY}.conv.norm."),
        ("dsn.0.", f"{AUXILIARY}.conv."),
        ("dsn.3.", f"{AUXILIARY}.predictor."),
    ],
}


def to_ccsa_key(key: str, source: str) -> str | None:
    """Return the key of ccsa for a key of ``source``; ``None`` if its models do not have it.

    Example:
        >>> to_ccsa_key("decode_head.conv_seg.bias", "mmseg")
        'sem_seg_head.predictor.bias'
    """
    return _renamed(key, RULES[source])


def to_source_key(key: str, source: str) -> str | None:
    """Return the key of ``source`` for a key of ccsa: the inverse of :func:`to_ccsa_key`."""
    return _renamed(key, [(new, old) for old, new in RULES[source]])


def _renamed(key: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        found = re.match(re.escape(old).replace(r"\*", r"(\d+)"), key)
        if found:
            for number in found.groups():
                new = new.replace("*", number, 1)
            return new + key[found.end() :]
    return None
