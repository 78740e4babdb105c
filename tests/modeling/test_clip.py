"""Clips: their keys, their offsets, the clips of a video, and which models take them."""

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.modeling import VideoSemanticSegmentor
from ccsa.modeling.clip import Clip, takes_clips


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    return cfg


def test_five_raw_frames_the_last_labelled_are_the_default(cfg):
    assert Clip.of(cfg) == Clip(5, 4, 1, "raw")
    assert Clip.of(cfg).offsets == [-4, -3, -2, -1, 0]


@pytest.mark.parametrize(
    ("frames", "labelled", "step", "offsets"),
    [
        (5, "middle", 2, [-4, -2, 0, 2, 4]),
        (4, "middle", 1, [-2, -1, 0, 1]),
        (3, "last", 30, [-60, -30, 0]),
        (1, "middle", 1, [0]),
    ],
)
def test_offsets(cfg, frames, labelled, step, offsets):
    keys = cfg.INPUT.CLIP
    keys.FRAMES, keys.LABELLED, keys.STEP = frames, labelled, step
    assert Clip.of(cfg).offsets == offsets


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("FRAMES", 0, "INPUT.CLIP.FRAMES must be an integer of at least 1, not 0"),
        ("STEP", -1, "INPUT.CLIP.STEP must be an integer of at least 1, not -1"),
        ("LABELLED", "first", "INPUT.CLIP.LABELLED must be one of last, middle, not 'first'"),
        ("SOURCE", "any", "INPUT.CLIP.SOURCE must be one of raw, labelled, not 'any'"),
    ],
)
def test_wrong_keys_are_named_with_the_right_ones(cfg, key, value, text):
    cfg.INPUT.CLIP[key] = value
    with pytest.raises(UserError) as error:
        Clip.of(cfg)
    assert str(error.value) == text and error.value.__cause__ is None


@pytest.mark.parametrize(
    ("clip", "frames", "wanted"),
    [
        (Clip(3, 2), "abcd", ["aaa", "aab", "abc", "bcd"]),
        (Clip(3, 1), "abcd", ["aab", "abc", "bcd", "cdd"]),
        (Clip(3, 1, 2), "abcde", ["aac", "abd", "ace", "bde", "cee"]),
        (Clip(5, 2), "ab", ["aaabb", "aabbb"]),
        (Clip(1, 0), "ab", ["a", "b"]),
        (Clip(3, 2), "", []),
    ],
)
def test_a_video_gives_a_clip_for_each_frame(clip, frames, wanted):
    assert ["".join(window) for window in clip.windows(frames)] == wanted


def test_a_clip_comes_as_soon_as_its_last_frame():
    """The frame of a camera must not be delayed."""
    given = []

    def camera():
        for frame in "abcd":
            given.append(frame)
            yield frame

    seen = [(len(given), window[2]) for window in Clip(3, 2).windows(camera())]
    assert seen == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_video_models_take_clips_wrapped_or_not(cfg):
    assert not takes_clips(cfg)
    cfg.MODEL.META_ARCHITECTURE = "VideoSemanticSegmentor"
    assert takes_clips(cfg)
    cfg.MODEL.META_ARCHITECTURE = "ContextModel"
    assert not takes_clips(cfg)
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "VideoSemanticSegmentor"
    assert takes_clips(cfg)


def test_a_meta_architecture_declares_that_it_takes_clips(cfg, monkeypatch):
    class OwnVideo(nn.Module):
        takes_clips = True

    class Inherited(VideoSemanticSegmentor):
        pass

    class OwnImages(nn.Module):
        pass

    monkeypatch.setattr(META_ARCH_REGISTRY, "_obj_map", dict(META_ARCH_REGISTRY._obj_map))
    for model in (OwnVideo, Inherited, OwnImages):
        META_ARCH_REGISTRY.register(model)
    for name, declared in (
        *(("OwnVideo", True), ("Inherited", True), ("VideoSemanticSegmentor", True)),
        *(("OwnImages", False), ("GeneralizedRCNN", False), ("DenseSegmentor", False)),
        *(("PanopticFPN", False), ("NoSuchModel", False), ("ContextModel", False)),
    ):
        cfg.MODEL.META_ARCHITECTURE = name
        assert takes_clips(cfg) is declared
        cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.CONTEXT.META_ARCHITECTURE = "ContextModel", name
        assert takes_clips(cfg) is declared
