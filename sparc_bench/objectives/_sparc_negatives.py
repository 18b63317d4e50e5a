"""Negatives of SPARC's fine loss beyond a token's own caption: other captions' tokens, other images' grouped vectors.

Shapes: B pairs of this rank, N pairs of all ranks, L text tokens, P patches, D joint width, K other images, C some of
these, X tokens of C captions (C L).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparc_bench.objective import Ctx

_EPS = 1e-6
_NUMBERS_AT_ONCE = 2**22
"""Values of a tensor of this rank's images, tokens of C captions and patches; more are computed in turns."""


def same_position_logits(
    grouped_BLD: Tensor, unit_BLD: Tensor, mask_BL: Tensor, scale: Tensor | float, ctx: Ctx
) -> tuple[Tensor, Tensor]:
    """Logits with the same position of other captions, where both captions have a word there: from c_bl and from t_bl.

    The first are s c_bl . t_nl, of each grouped vector with the tokens of other captions n; the second s t_bl . c_nl,
    of each token with the vectors that those tokens group from their own images n. A pair (image, caption) that is
    known to be true gives no negative in either. Which word stands there does not matter: captions that begin alike
    have the same word as a negative, in another context.

    Args:
        grouped_BLD: language-grouped vectors c of length 1.
        unit_BLD: tokens t of length 1.
        mask_BL: True where a token is a word.
        scale: inverse temperature s.
        ctx: context of the run; ranks may differ in L.

    Returns:
        Two tensors BLN, the dtype's least number where there is no negative.
    """
    length, rows = mask_BL.shape[1], ctx.rows(len(mask_BL))
    tokens_NLD, grouped_NLD, mask_NL = (
        ctx.gather(rows_BLX, ragged=True)[:, :length] for rows_BLX in (unit_BLD, grouped_BLD, mask_BL)
    )
    other_BN = torch.arange(len(mask_NL), device=mask_BL.device) != torch.arange(
        rows.start, rows.stop, device=mask_BL.device
    ).unsqueeze(1)
    known_NN = ctx.known_true()
    of_grouped_BN = other_BN if known_NN is None else other_BN & ~known_NN[rows]
    of_token_BN = other_BN if known_NN is None else other_BN & ~known_NN.T[rows]
    words_BLN = mask_BL.unsqueeze(-1) & mask_NL.T
    return (
        _filled(scale * torch.einsum("bld,nld->bln", grouped_BLD, tokens_NLD), of_grouped_BN.unsqueeze(1) & words_BLN),
        _filled(scale * torch.einsum("bld,nld->bln", unit_BLD, grouped_NLD), of_token_BN.unsqueeze(1) & words_BLN),
    )


def other_images_logits(
    patches_BPD: Tensor,
    tokens_BLD: Tensor,
    mask_BL: Tensor,
    scale: Tensor | float,
    weigh: Callable[[Tensor], Tensor],
    others: int,
    ctx: Ctx,
) -> Tensor:
    """Logits s t_bl . c_nbl of each token with the vectors that the same token groups from K other images n.

    c_nbl is sum_p w(t_bl, patches of n)_p v_np, scaled to length 1. The others are the next K of the batch of all ranks
    in its order, the first following the last; with K = N - 1 they are all of them, and the order has no effect. An
    image of which caption b is known to be true gives no negative. Each rank scores its own images with the captions
    that come before them, and ranks exchange scores, not patches.

    Args:
        patches_BPD: adapted patches, un-normalised.
        tokens_BLD: adapted tokens, un-normalised; 0 in padding.
        mask_BL: True where a token is a word.
        scale: inverse temperature s.
        weigh: alignment weights of similarities (..., P).
        others: K; N - 1 at most are taken.
        ctx: context of the run; ranks may differ in L.

    Returns:
        A tensor BLK, the dtype's least number where there is no negative.
    """
    length, rows = mask_BL.shape[1], ctx.rows(len(mask_BL))
    tokens_NLD, mask_NL = ctx.gather(tokens_BLD, ragged=True), ctx.gather(mask_BL, ragged=True)
    used = _used(mask_NL)
    tokens_NLD, count = tokens_NLD[:, :used], len(mask_NL)
    shift_K = torch.arange(1, 1 + min(count - 1, others), device=mask_BL.device)
    if not len(shift_K):
        return patches_BPD.new_zeros((*mask_BL.shape, 0))
    own_B1 = torch.arange(rows.start, rows.stop, device=mask_BL.device).unsqueeze(1)
    cosines_BKL = _cosines(patches_BPD, tokens_NLD, (own_B1 - shift_K) % count, weigh)
    image_BK = (own_B1 + shift_K) % count
    # image n holds the captions before it by their distance: caption b's K-th entry lies with image b + K
    cosines_BKL = ctx.gather(cosines_BKL)[image_BK, shift_K - 1]
    cosines_BLK = F.pad(cosines_BKL.mT, (0, 0, 0, max(0, length - used)))[:, :length]
    known_NN = ctx.known_true()
    negative_BLK = mask_BL.unsqueeze(-1).expand_as(cosines_BLK)
    if known_NN is not None:
        negative_BLK = negative_BLK & ~known_NN[image_BK, own_B1].unsqueeze(1)
    return _filled(scale * cosines_BLK, negative_BLK)


def _cosines(patches_BPD: Tensor, tokens_NLD: Tensor, caption_BK: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """Cosines of the tokens of K captions with the vectors that they group from an image: BKL."""
    products_BPP = patches_BPD @ patches_BPD.mT
    words = tokens_NLD.shape[1]

    def cosines_of(caption_BC: Tensor) -> Tensor:
        tokens_BXD = tokens_NLD.index_select(0, caption_BC.flatten()).view(len(caption_BC), -1, tokens_NLD.shape[2])
        similarity_BXP = tokens_BXD @ patches_BPD.mT
        weights_BXP = weigh(similarity_BXP)
        # the grouped vector c is never formed: c . t and |c|^2 are sums of the patches' inner products
        inner_BX = (weights_BXP * similarity_BXP).sum(-1)
        square_BX = (weights_BXP @ products_BPP * weights_BXP).sum(-1)
        length_BX = tokens_BXD.square().sum(-1).clamp_min(_EPS**2).sqrt()
        cosines_BX: Tensor = inner_BX * square_BX.clamp_min(_EPS**2).rsqrt() / length_BX
        return cosines_BX.view(*caption_BC.shape, words)

    numbers = len(patches_BPD) * words * max(patches_BPD.shape[1:])
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, numbers))
    parts = torch.split(caption_BK, at_once, dim=1)
    if len(parts) == 1:
        return cosines_of(caption_BK)
    return torch.cat([checkpoint(cosines_of, part_BC, use_reentrant=False) for part_BC in parts], dim=1)


def _used(mask_NL: Tensor) -> int:
    """Positions up to the last that is a word in any caption, at least one."""
    used_X = mask_NL.any(0).nonzero()
    return int(used_X[-1]) + 1 if len(used_X) else 1


def _filled(logits: Tensor, negative: Tensor) -> Tensor:
    return logits.masked_fill(~negative, torch.finfo(logits.dtype).min)
