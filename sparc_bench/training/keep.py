"""Keep a finished run as a reference model: `python -m sparc_bench.training.keep runs/scenes_clip/seed0`.

Writes reference_models/weights/RECIPE.safetensors in bf16 and prints the [weights] table for the recipe's card.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sparc_bench.cards.discovery import cards_folder
from sparc_bench.encoders.own import WEIGHTS_FILE
from sparc_bench.errors import UserError
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights.weights_file import file_sha256

LIMIT = 5_000_000
"""Bytes that a file of weights in the repository may have."""


def keep(run_folder: Path, folder: Path) -> tuple[Path, str, int]:
    """Write a run's model in bf16 into `folder`; returns the file, its sha256 and the training steps behind it.

    Raises:
        UserError: no finished model, or one too large to be kept.
    """
    meta, tensors = checkpoint.read(run_folder / WEIGHTS_FILE)
    half = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    size = sum(tensor.numel() * tensor.element_size() for tensor in half.values())
    if size > LIMIT:
        raise UserError(
            f"{meta.recipe.name} would take {size / 1e6:.1f} MB of {LIMIT / 1e6:.0f}: make its towers smaller."
        )
    file = folder / f"{meta.recipe.name}.safetensors"
    checkpoint.write_atomically(half, meta, file)
    return file, file_sha256(file), meta.step


def main() -> None:
    """Keep the run folders named on the command line."""
    cards = cards_folder("reference_models")
    for name in sys.argv[1:]:
        file, sha256, steps = keep(Path(name), cards / "weights")
        table = f'[weights]\nfile = "{file.relative_to(cards)}"\nsha256 = "{sha256}"\nsteps = {steps}\n'
        sys.stdout.write(table)


if __name__ == "__main__":
    main()
