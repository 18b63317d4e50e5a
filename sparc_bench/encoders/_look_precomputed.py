"""What is wrong with stored embeddings, said without torch (see `sparc_bench.models.resolve`)."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoders._stored_arrays import array_files
from sparc_bench.encoders._stored_vectors import read_vectors

MOST_BYTES = 2**26
"""Bytes of embeddings that are read before torch is imported, at most; larger ones are read once, after it."""


def refuse(card: ModelCard, weights: Path | None) -> None:  # noqa: ARG001 - as for every family
    """Raise UserError for a file or folder that holds no embeddings, or damaged ones."""
    if weights is not None and sum(file.stat().st_size for file in array_files(weights)) <= MOST_BYTES:
        read_vectors(weights)
