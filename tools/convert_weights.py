#!/usr/bin/env python
"""Turn a checkpoint of MMSegmentation, of the official CCNet code or of a run into safetensors.

    python tools/convert_weights.py --source mmseg --input ccnet_r50-d8.pth --output r50.safetensors
    python tools/train_net.py --config-file configs/cityscapes/ccnet_R_50_mmseg.yaml \\
        --eval-only MODEL.WEIGHTS r50.safetensors

--source ccsa writes the weights of a run's checkpoint as they are. Of the other programs, every
weight must find its place, and every place its weight; else the program names them and ends
with status 2. No code in a checkpoint is run. docs/WEIGHTS.md says where checkpoints are
published and which configuration each needs.
"""

import argparse
from pathlib import Path

from ccsa.checkpoint.conversion import OURS, SOURCES, convert_state_dict, model_options
from ccsa.checkpoint.weight_files import check_suffix, loading_errors, read_weights, save_weights
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.files import check_new_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        required=True,
        choices=SOURCES,
        help="the program that made it: MMSegmentation, the official CCNet code, or this one",
    )
    parser.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help="the checkpoint, .pth as a rule"
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
    with loading_errors(args.input, "--input"):
        checkpoint = read_weights(args.input)
    try:
        converted = convert_state_dict(checkpoint, args.source)
    except UserError as error:
        raise UserError(f"--input {args.input}: {error}; name another file or --source") from None
    save_weights(converted, args.output, source=args.source)
    if args.source == OURS:
        print(f"{len(converted)} tensors written under their names")
    else:
        options = " ".join(f"{key} {value}" for key, value in model_options(converted).items())
        print(f"{len(converted)} tensors converted, none left over, none missing")
        print(f"model:   {options}")
    print(f"weights: {args.output}")


if __name__ == "__main__":
    main()
