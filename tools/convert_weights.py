#!/usr/bin/env python
"""Convert a checkpoint of MMSegmentation, the official CCNet code or a run to safetensors.

    python tools/convert_weights.py --source mmseg --input ccnet_r50-d8.pth --output r50.safetensors
    python tools/train_net.py --config-file configs/cityscapes/ccnet_R_50_mmseg.yaml \\
        --eval-only MODEL.WEIGHTS r50.safetensors

--source ccsa writes the weights of a run's checkpoint under their own keys. For the other sources,
every weight must have a counterpart in the model and vice versa; otherwise the tool lists the
differences and exits with status 2. Code in a checkpoint is never run. docs/WEIGHTS.md lists where
checkpoints are published and which configuration each of them needs.
"""

import argparse
from pathlib import Path

from ccsa.checkpoint.conversion import CCSA, SOURCES, convert_state_dict, model_options
from ccsa.checkpoint.load_report import BATCH_COUNTER
from ccsa.checkpoint.weight_files import WeightsSource, check_suffix, read_weights, save_weights
from ccsa.errors import reports_user_errors
from ccsa.utils.files import check_new_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        required=True,
        choices=SOURCES,
        help="the codebase that wrote it: MMSegmentation, the official CCNet code, or this project",
    )
    parser.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help="the checkpoint, usually .pth"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="a new .safetensors file"
    )
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    check_suffix(args.output)
    check_new_file(args.output, "--output")
    checkpoint = read_weights(args.input, WeightsSource(args.input, "--input"))
    converted = convert_state_dict(
        checkpoint,
        args.source,
        label=f"--input {args.input}",
        advice="; name another file or --source",
    )
    save_weights(converted, args.output, source=args.source)
    if args.source == CCSA:
        print(f"{len(converted)} tensors written under their own keys")
    else:
        options = " ".join(f"{key} {value}" for key, value in model_options(converted).items())
        counters = sum(key.endswith(BATCH_COUNTER) for key in converted)
        print(
            f"{len(converted)} tensors converted, of which {counters} are batch counters of norms, "
            "which a load report does not count; none is left over or missing"
        )
        print(f"model:   {options}")
    print(f"weights: {args.output}")


if __name__ == "__main__":
    main()
