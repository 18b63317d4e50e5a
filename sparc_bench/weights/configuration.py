"""Third-party configurations: values that no checkpoint has are refused before a model is built.

A depth of 1e9 would be built for ever, a width of 1e6 take more memory than there is, and timm fetch a model that is
named `hf-hub:...` without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError, quoted

MOST_LAYERS = 1024
"""Layers of a tower, at most."""

LARGEST = 2**31
"""Largest whole number in a configuration."""

SMALL = 2**29
"""Bytes of a model that any machine holds, whatever its weights are."""

_LAYERS = re.compile(r"(^|_)(layers?|depths?)$")
_WIDTHS = re.compile(r"(^|_)(width|hidden_size|embed_dim|d_model|projection_dim|intermediate_size)$")
_VOCABULARY = re.compile(r"(^|_)(vocab_size|vocabulary)$")
_POSITIONS = re.compile(r"^(context|context_length|max_position_embeddings|attn_pooler_queries)$")
_HUB = re.compile(r"hf[-_]hub:", re.IGNORECASE)


def refuse_absurd(settings: Mapping[str, Any], where: str, weights: Path) -> None:
    """Raise UserError for a configuration that its weights cannot be of, or that makes timm reach for the hub.

    Args:
        settings: the configuration, tables within it too.
        where: its file, for the sentence.
        weights: file or folder of the weights, of whose size the model can be at most.
    """
    size = _size(weights)
    for table in _tables(settings):
        numbers = {key: found for key, value in table.items() if (found := _whole(value))}
        layers = {key: sum(found) for key, found in numbers.items() if _LAYERS.search(key)}
        odd = next((key for key, found in numbers.items() if max(map(abs, found)) > LARGEST), None)
        odd = odd or next((key for key, value in layers.items() if value > MOST_LAYERS), None)
        if odd is not None:
            value = layers.get(odd) or max(numbers[odd], key=abs)
            raise UserError(f"{where}: {quoted(odd)} is {value:,}, as no model has it: take it from its authors anew.")
        least = _least(table, numbers, min(layers.values(), default=1))
        if least > max(size, SMALL):
            raise UserError(
                f"{where} describes a model of over {least:,.0f} bytes, which {weights} with {size:,} does not hold: "
                "take both from the same checkpoint."
            )
        for key, value in table.items():
            if isinstance(value, str) and _HUB.match(value):
                raise UserError(
                    f"{where}: {quoted(key)} is {quoted(value)}, which timm would fetch from the hub: write timm's "
                    "own name of the architecture there."
                )


def _whole(value: object) -> list[int]:
    """A whole number, or those of a list."""
    return [each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, int)]


def _least(table: Mapping[str, Any], numbers: Mapping[str, list[int]], layers: int) -> float:
    """Bytes that a tower takes at least, in the smallest form that weights are stored in."""
    width = min((min(found) for key, found in numbers.items() if _WIDTHS.search(key)), default=0)
    words = min((min(found) for key, found in numbers.items() if _VOCABULARY.search(key)), default=0)
    rows = [max(found) for key, found in numbers.items() if _POSITIONS.search(key)]
    sides = numbers.get("image_size") or numbers.get("size") or [0]
    patch = max(1, *(numbers.get("patch_size") or numbers.get("patch") or [16]))
    rows.append((sides[0] // patch) * (sides[-1] // patch))
    ratio = table.get("mlp_ratio")
    wide = ratio if isinstance(ratio, int | float) and ratio > 4 else 4
    mask = max(numbers.get("context_length", [0])) ** 2 * 4  # open_clip makes it while it builds the tower
    # a third of what its layers, and half of what its words and positions take
    return max(width * width * layers * wide, words * width // 2, max(rows) * max(width, 1), mask)


def _tables(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    todo: list[Any] = [settings]
    while todo:
        each = todo.pop()
        if isinstance(each, Mapping):
            yield each
            todo += each.values()
        elif isinstance(each, list | tuple):
            todo += each


def _size(weights: Path) -> int:
    """Bytes of a file, or of all files beside the index of a sharded checkpoint."""
    if weights.is_file() and not weights.name.endswith(".index.json"):
        return weights.stat().st_size
    folder = weights if weights.is_dir() else weights.parent
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
