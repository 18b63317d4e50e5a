"""Names under `results/` of models that were typed as FAMILY:WEIGHTS."""

from __future__ import annotations

import re
from hashlib import sha256

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.name import LONGEST_NAME


def folder_name(family: str, title: str) -> str:
    """Folder name under `results/` of a model typed as FAMILY:WEIGHTS; a long one ends in eight digits of its hash.

    >>> folder_name("open_clip", "ViT-B-32/openai")
    'open_clip_ViT-B-32_openai'
    """
    name = re.sub(r"[^\w.-]+|__+", "_", f"{family}_{title}").strip("_.")
    name = name.replace(".seed", "_seed")  # `NAME.seed1` is the folder of another training seed
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{sha256(title.encode()).hexdigest()[:8]}"
    return name


def typed_name(card: ModelCard) -> str:
    """The model's name where the same checkpoint is typed as FAMILY:WEIGHTS; the card's own where it cannot be."""
    typed = card.options.get("weights") if set(card.options) == {"weights"} and card.weights is None else None
    return folder_name(card.family, typed) if isinstance(typed, str) else card.name
