"""Keys of the feature cache: everything that decides a vector. A change of any part is another key."""

from __future__ import annotations

from typing import Any

from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.records.environment import library_versions

VERSION = 2
"""Version of the file format; another one makes all cached features stale."""

LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "tokenizers", "pillow", "numpy")
"""Distributions whose version can change a vector."""


def text_key(encoder: Encoder) -> dict[str, Any] | None:
    """The key of an encoder's text vectors: all that decides them but the text; None without `identity`."""
    if encoder.identity is None:
        return None
    return {
        "version": VERSION,
        "family": encoder.card.family,
        "weights": encoder.weights_hash,
        "options": dict(encoder.card.options),
        "encoder": dict(encoder.identity),
        "plug-in": encoder.code_hash or "",
        "precision": encoder.precision,
        "device": encoder.device.type,
        "libraries": library_versions(LIBRARIES),
    }


def image_key(encoder: Encoder, data: Examples) -> dict[str, Any] | None:
    """The key of an encoder's vectors of a split's images: all but the view; None where it has none."""
    shared = text_key(encoder)
    if shared is None or not pixels_of(data):
        return None
    return {**shared, "dataset": data.dataset, "split": data.split}


def pixels_of(data: Examples) -> str:
    """Hash that stands for the content of images that have none; empty where nothing is known."""
    return data.pixels_hash or data.fingerprint
