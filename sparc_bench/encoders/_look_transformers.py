"""What is wrong with a folder of transformers by its files, said without torch (see `sparc_bench.models.resolve`)."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoders import _transformers_folder as files


def refuse(card: ModelCard, weights: Path | None) -> None:  # noqa: ARG001 - as for every family
    """Raise UserError for a folder without weights, or without a configuration that can be read."""
    if weights is not None:
        files.local_folder(weights, None).json(files.CONFIG)
