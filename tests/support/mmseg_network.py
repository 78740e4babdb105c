"""Save random weights and the outputs of MMSegmentation's network, for the test of the conversion.

Run ``python mmseg_network.py FILE`` with mmsegmentation on the path; without it, the exit status is
3. The compiled part of mmcv is not on PyPI; nothing here calls it, so a placeholder module replaces
it.
"""

import sys
import types

import torch

NO_MMSEG = 3  # exit status


class NotCompiled(types.ModuleType):
    """A module that has every function; each of them raises an error when it is called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.fail

    def fail(self, *args, **keywords):
        raise RuntimeError("a function of the compiled part of mmcv was called")


def random_weights(model):
    generator = torch.Generator().manual_seed(5)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.dim() == 4:
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(-0.5, 1, generator=generator)


def main(file):
    sys.modules["mmcv._ext"] = NotCompiled("mmcv._ext")
    try:
        from mmseg.models.backbones import ResNetV1c
        from mmseg.models.decode_heads import CCHead, FCNHead
    except (ImportError, AssertionError) as error:  # mmseg asserts the version of mmcv
        print(f"mmsegmentation cannot be imported: {error}")
        sys.exit(NO_MMSEG)

    norm = {"norm_cfg": {"type": "BN"}}
    head = {"num_classes": 7, "align_corners": False, **norm}
    model = torch.nn.ModuleDict(
        {
            "backbone": ResNetV1c(
                depth=101,
                dilations=(1, 1, 2, 4),
                strides=(1, 2, 1, 1),
                contract_dilation=True,
                stem_channels=8,
                base_channels=4,
                **norm,
            ),
            "decode_head": CCHead(in_channels=128, in_index=3, channels=16, recurrence=2, **head),
            "auxiliary_head": FCNHead(
                in_channels=64, in_index=2, channels=8, num_convs=1, concat_input=False, **head
            ),
        }
    ).double()
    random_weights(model.eval())
    x = torch.randn(1, 3, 65, 98, generator=torch.Generator().manual_seed(6)).double()
    with torch.no_grad():
        features = model["backbone"](x)
        outputs = {
            "res5": features[3],
            "logits": model["decode_head"](features),
            "aux_logits": model["auxiliary_head"](features),
        }
    torch.save({"state_dict": model.state_dict(), "input": x, "outputs": outputs}, file)


if __name__ == "__main__":
    main(sys.argv[1])
