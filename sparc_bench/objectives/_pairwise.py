"""Scores that look at every patch (and every token) of each pair, in bounded memory.

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
    """`score(*texts)` for `chunk` texts at a time, computed again in the backward pass; equal to the plain form.

    Args:
        score: from runs of the tensors in `texts` to scores NM, as a tuple; it may close over tensors of images.
        texts: tensors whose first dimension is the text (tokens, mask, vectors).
        chunk: texts at once; none for all of them, without recomputation.
    """
    if chunk is None:
        return score(*texts)
    parts = [
        checkpoint(score, *(tensor[start : start + chunk] for tensor in texts), use_reentrant=False)
        for start in range(0, len(texts[0]), chunk)
    ]
    return tuple(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True))


def to_text_rows(scores_BN: Tensor, ctx: Ctx) -> Tensor:
    """From scores of this rank's images with all texts to those of this rank's texts with all images (BN).

    The scores travel, not the patches.
    """
    return ctx.gather(scores_BN)[:, ctx.rows(len(scores_BN))].T


def without_padding(tokens_MLD: Tensor, mask_ML: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens and mask cut after the last position that is a word in any text (one position at least)."""
    used_L = mask_ML.any(0).nonzero()
    length = int(used_L[-1]) + 1 if len(used_L) else 1
    return tokens_MLD[:, :length], mask_ML[:, :length]
