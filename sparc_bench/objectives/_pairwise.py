"""Helpers for scores of every patch (and token) of all image-text pairs, in bounded memory.

Shapes: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparc_bench.objective import Ctx


def in_text_chunks(
    score: Callable[..., tuple[Tensor, ...]], texts: Sequence[Tensor], chunk: int | None
) -> tuple[Tensor, ...]:
    """`score(*texts)`, computed for `chunk` texts at a time and recomputed in the backward pass.

    Args:
        score: function from slices of the tensors in `texts` to a tuple of scores NM; it may close over image tensors.
        texts: tensors whose first dimension is the text (tokens, mask, vectors).
        chunk: texts at once; None for all of them, without recomputation.
    """
    if chunk is None:
        return score(*texts)
    parts = [
        checkpoint(score, *(tensor[start : start + chunk] for tensor in texts), use_reentrant=False)
        for start in range(0, len(texts[0]), chunk)
    ]
    return tuple(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True))


def to_text_rows(scores_BN: Tensor, ctx: Ctx) -> Tensor:
    """Scores BN of this rank's texts with all images, from those of this rank's images with all texts.

    Ranks exchange scores, not patches.
    """
    return ctx.gather(scores_BN)[:, ctx.rows(len(scores_BN))].T


def without_padding(tokens_MLD: Tensor, mask_ML: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and mask, cut after the last position that is a word in any text (at least one position)."""
    used_L = mask_ML.any(0).nonzero()
    length = int(used_L[-1]) + 1 if len(used_L) else 1
    return tokens_MLD[:, :length], mask_ML[:, :length]
