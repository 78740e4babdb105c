"""VideoSemanticSegmentor and its head: values, clips of one frame, and rejected settings."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.inference import SemanticTTA, SlidingWindow
from ccsa.modeling import CCNetHead, VideoCCNetHead
from ccsa.ops import criss_cross_attention

SMALL = {"num_classes": 5, "channels": 16, "aux_channels": 8, "norm": "BN", "dropout": 0.0}


def config(frames=3, labelled="last", head="VideoCCNetHead"):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    model, keys = cfg.MODEL, cfg.MODEL.SEM_SEG_HEAD
    model.DEVICE, model.META_ARCHITECTURE = "cpu", "VideoSemanticSegmentor"
    model.BACKBONE.NAME = "PlainBackbone"
    model.PLAIN.CHANNELS, model.PLAIN.STRIDES = [8, 8], [2, 2]
    keys.NAME, keys.IN_FEATURES, keys.NUM_CLASSES = head, ["conv2"], 5
    keys.CONVS_DIM, keys.NORM, keys.AUX.IN_FEATURE, keys.AUX.CHANNELS = 8, "BN", "conv2", 4
    keys.PREDICTOR_STD = 1.0
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.LABELLED = frames, labelled
    return cfg


def build(*args, gamma=0.6):
    torch.manual_seed(0)
    model = build_model(config(*args)).eval()
    torch.nn.init.constant_(model.sem_seg_head.attention.gamma, gamma)
    return model


def clip(frames, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("labelled", [1, -1])
def test_the_head_by_hand(shapes, features, labelled):
    """Use two clips of three frames: only attention and reduction process unlabeled frames."""
    head = VideoCCNetHead(shapes, **SMALL, frames=3, labelled=labelled).eval()
    torch.nn.init.constant_(head.attention.gamma, 0.6)
    x = torch.cat([features["res5"], features["res5"].flip(-1), 2 * features["res5"]])
    with torch.no_grad():
        clips = head.reduction(x).unflatten(0, (2, 3)).movedim(1, 2)
        attended = clips
        for _ in range(2):
            qkv = (
                getattr(head.attention, f"{n}_conv")(attended) for n in ("query", "key", "value")
            )
            attended = attended + 0.6 * criss_cross_attention(*qkv, backend="reference")
        own = [labelled % 3, labelled % 3 + 3]
        refined = head.refine(attended[:, :, labelled])
        wanted = head.predictor(head.fusion(torch.cat([x[own], refined], 1)))
        torch.testing.assert_close(head.layers({"res5": x}), wanted)


def test_losses_are_of_the_labelled_frame(shapes, features, labels):
    head = VideoCCNetHead(shapes, **SMALL, frames=2, labelled=0)
    both = {name: torch.cat([x, x.flip(0)])[[0, 2, 1, 3]] for name, x in features.items()}
    _, losses = head(both, labels)
    auxiliary = F.interpolate(head.auxiliary(features["res4"]), labels.shape[1:], mode="bilinear")
    wanted = 0.4 * F.cross_entropy(auxiliary, labels, ignore_index=255)
    torch.testing.assert_close(losses["loss_aux"], wanted)
    logits = F.interpolate(head.layers(both), labels.shape[1:], mode="bilinear")
    wanted = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(losses["loss_sem_seg"], wanted)


def test_one_frame_is_ccnet_for_images(shapes, features):
    video = VideoCCNetHead(shapes, **SMALL, frames=1).eval()
    torch.nn.init.constant_(video.attention.gamma, 0.6)
    plain = CCNetHead(shapes, **SMALL).eval()
    state = {k: v.squeeze(2) if v.ndim == 5 else v for k, v in video.state_dict().items()}
    plain.load_state_dict(state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(video.layers(features), plain.layers(features))


@pytest.mark.parametrize(("labelled", "own"), [("last", 2), ("middle", 1)])
def test_attention_alone_reaches_the_other_frames(labelled, own):
    for gamma in (0.0, 0.6):
        model = build(3, labelled, gamma=gamma)
        x = clip(3, 24, 32)
        reached = []
        with torch.no_grad():
            before = model([{"image": x}])[0]["sem_seg"]
            assert before.shape == (5, 24, 32)
            for frame in range(3):
                other = x.clone()
                other[frame, :, 8:16, 8:16] = 255 - other[frame, :, 8:16, 8:16]
                after = model([{"image": other}])[0]["sem_seg"]
                reached.append(not torch.equal(before, after))
        assert reached == ([True] * 3 if gamma else [frame == own for frame in range(3)])


def test_clips_do_not_mix_and_come_in_their_own_sizes():
    model = build()
    clips = [clip(3, 24, 32), clip(3, 20, 28, 1)]
    with torch.no_grad():
        both = [r["sem_seg"] for r in model([{"image": x} for x in clips])]
        again = model([{"image": clips[0]}, {"image": 255 - clips[1]}])[0]["sem_seg"]
    assert [r.shape for r in both] == [(5, 24, 32), (5, 20, 28)]
    assert torch.equal(both[0], again)


def test_every_weight_gets_a_gradient_and_padding_does_not_count():
    model = build().train()
    batch = [
        {"image": clip(3, h, w), "sem_seg": torch.randint(0, 5, (h, w))}
        for h, w in ((24, 32), (20, 28))
    ]
    losses = model(batch)
    assert set(losses) == {"loss_sem_seg", "loss_aux"}
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_windows_and_scales_take_clips():
    model, x = build(), clip(3, 24, 32)
    with torch.no_grad():
        plain = model([{"image": x}])[0]["sem_seg"]
        whole = SlidingWindow(model, [24, 32], [0, 0])([{"image": x}])[0]["sem_seg"]
        torch.testing.assert_close(whole, plain)
        windows = SlidingWindow(model, [24, 16], [0, 0])([{"image": x}])[0]["sem_seg"]
        right = model([{"image": x[..., 16:]}])[0]["sem_seg"]
        torch.testing.assert_close(windows[..., 16:], right)
        flipped = model([{"image": x.flip(-1)}])[0]["sem_seg"].flip(-1)
        both = SemanticTTA(model, [1.0], flip=True)([{"image": x}])[0]["sem_seg"]
        torch.testing.assert_close(both, (plain + flipped) / 2)
        half = F.interpolate(x.float(), (12, 16), mode="bilinear", antialias=True)
        half = model([{"image": half, "height": 24, "width": 32}])[0]["sem_seg"]
        scaled = SemanticTTA(model, [0.5], flip=False)([{"image": x}])[0]["sem_seg"]
        torch.testing.assert_close(scaled, half)


@pytest.mark.parametrize("shape", [(2, 3, 24, 32), (3, 24, 32)])
def test_another_number_of_frames_is_refused(shape):
    with pytest.raises(UserError, match=r"takes clips of 5 frames .* but was given [12]"):
        build(5)([{"image": torch.zeros(shape)}])


def test_an_image_is_a_clip_of_one_frame():
    model, x = build(1), clip(1, 24, 32)
    with torch.no_grad():
        one, other = model([{"image": x}, {"image": x[0]}])
    assert torch.equal(one["sem_seg"], other["sem_seg"])


@pytest.mark.parametrize("architecture", ["DenseSegmentor", "SemanticSegmentor"])
def test_images_of_a_batch_are_not_taken_for_a_clip(architecture):
    cfg = config(5)
    cfg.MODEL.META_ARCHITECTURE = architecture
    with pytest.raises(ValueError, match=r"only VideoSemanticSegmentor .* INPUT\.CLIP\.FRAMES 1"):
        build_model(cfg)
    cfg.INPUT.CLIP.FRAMES = 1
    build_model(cfg)


def test_what_makes_nothing_of_frames_is_refused(shapes):
    for head in ("CCNetHead", "FCNHead"):
        with pytest.raises(ValueError, match=f"VideoCCNetHead, not {head}"):
            build_model(config(head=head))
    with pytest.raises(ValueError, match="dims: 3, not"):
        VideoCCNetHead(shapes, **SMALL, blocks=[{"block": "CrissCross", "dims": 2}])
    with pytest.raises(ValueError, match="SqueezeAttention has no keyword 'dims'"):
        VideoCCNetHead(shapes, **SMALL, blocks=[{"block": "SqueezeAttention"}])
    with pytest.raises(ValueError, match="index of one of 3 frames, not 3"):
        VideoCCNetHead(shapes, **SMALL, frames=3, labelled=3)
