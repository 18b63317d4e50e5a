"""A training as a person named it: checked before anything is computed, then handed to `train`.

The way of `sparc-bench train` and of `sparc_bench.train`; torch is imported after the checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparc_bench.cards.recipe import Recipe
from sparc_bench.first_checks import refuse_absent_training_data, refuse_unwritable


def train_named(
    recipe: Recipe, runs: Path, data_root: Path | None, seed: int, device: str, tensorboard: bool
) -> tuple[Path, dict[str, Any]]:
    """The run folder `runs/<recipe>/seed<seed>` and the summary; {} in all but the first of several processes.

    Raises:
        UserError: the data are not there, the folder cannot be written, or see `sparc_bench.training.train.train`.
    """
    refuse_unwritable(runs)
    refuse_absent_training_data([recipe], data_root)
    from sparc_bench.distributed import process_group
    from sparc_bench.training.train import train

    folder = runs / recipe.name / f"seed{seed}"
    with _determinism_restored(), process_group(device) as own_device:
        return folder, train(recipe, folder, data_root, seed, own_device, tensorboard)


@contextmanager
def _determinism_restored() -> Iterator[None]:
    """Training asks torch for deterministic algorithms; what follows in this process has its own setting again."""
    import torch

    asked, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warn_only)
