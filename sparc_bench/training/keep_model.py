"""Kept models: `python -m sparc_bench.training.keep_model runs/scenes_clip/seed0` keeps the model of a finished run.

The command writes reference_models/weights/RECIPE.safetensors in bf16 and prints the table [weights] for the recipe's
card.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sparc_bench.cards.discovery import cards_folder
from sparc_bench.encoders.own import WEIGHTS_FILE
from sparc_bench.errors import UserError
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights.weights_file import file_sha256, refuse_odd_values

LIMIT = 5_000_000
"""Largest size of a weights file in the repository, in bytes."""


def keep_model(run_folder: Path, folder: Path) -> tuple[Path, str, int]:
    """Write a run's model in bf16 into `folder`; returns the file, its sha256 and its training steps.

    Raises:
        UserError: the run has no finished model, or the model is too large or not finite.
    """
    weights = run_folder / WEIGHTS_FILE
    meta, tensors = checkpoint.read(weights)
    for name, tensor in tensors.items():
        refuse_odd_values(weights, name, tensor)
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
    checkpoint.write_checkpoint(half, meta, file)
    return file, file_sha256(file), meta.step


def main() -> None:
    """Keep the models of the run folders named on the command line."""
    cards = cards_folder("reference_models")
    for name in sys.argv[1:]:
        file, sha256, steps = keep_model(Path(name), cards / "weights")
        table = f'[weights]\nfile = "{file.relative_to(cards)}"\nsha256 = "{sha256}"\nsteps = {steps}\n'
        sys.stdout.write(table)


if __name__ == "__main__":
    main()
