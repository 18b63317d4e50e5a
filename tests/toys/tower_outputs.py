"""Made-up tower outputs for any objective, small and uneven.

Shapes as in `sparc_bench.objective`: B batch, K texts per image, L tokens, P patches, W tower width.
"""

import torch

from sparc_bench.cards import discovery
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.objective import ImageOut, TextOut

B, P, L, WI, WT = 6, 9, 7, 10, 8
WORDS = (5, 3, 4, 2, 5, 1, 3)


def make(name, seed=0, dtype=torch.float32, **options):
    loss = discovery.load("objectives", name).Objective
    torch.manual_seed(seed)
    return loss(WI, WT, loss.Options(**options)).to(dtype)


def texts_per_image(objective):
    return objective.captions_per_image + objective.negatives_per_image


def outputs(objective, seed=0, dtype=torch.float32, scale=1.0, extra_padding=0, batch=B, equal_captions=False):
    """Outputs of both towers; `equal_captions`: all texts of an image are the same."""
    draw = torch.Generator().manual_seed(seed)
    texts = texts_per_image(objective)
    branches = objective.tower_options(objective.options).get("branches", 0)
    patches_BPW = scale * torch.randn(batch, P, WI, generator=draw)
    tokens_BKLW = scale * torch.randn(batch, texts, L, WT, generator=draw)
    words_BK11 = (torch.tensor(WORDS[:batch])[:, None, None] + torch.arange(texts)[None, :, None]) % 5 + 1
    if equal_captions:
        tokens_BKLW = tokens_BKLW[:, :1].expand(-1, texts, -1, -1).clone()
        words_BK11 = words_BK11[:, :1].expand(-1, texts, -1)
    place = torch.arange(L)[None, None]
    mask_BKL = (place >= 1) & (place <= words_BK11)
    special_BKL = (place == 0) | (place == words_BK11 + 1)
    pooled_BKW = (tokens_BKLW * mask_BKL[..., None]).sum(2) / words_BK11
    if extra_padding:
        tokens_BKLW = torch.cat([tokens_BKLW, torch.full((batch, texts, extra_padding, WT), 7.0)], 2)
        more = torch.zeros(batch, texts, extra_padding, dtype=torch.bool)
        mask_BKL, special_BKL = torch.cat([mask_BKL, more], 2), torch.cat([special_BKL, more], 2)
    pooled_BMW = (
        scale * torch.randn(batch, branches, WI, generator=draw) if branches else patches_BPW.mean(1, keepdim=True)
    )
    image = ImageOut(patches_BPW.to(dtype), pooled_BMW.to(dtype), (3, 3))
    return image, TextOut(tokens_BKLW.to(dtype), pooled_BKW.to(dtype), mask_BKL, special_BKL)


def rows(image, text, kept):
    """The outputs of some pairs (a slice or an index tensor)."""
    return permuted(image, text, kept, kept)


def permuted(image, text, image_order, text_order):
    """The outputs with images and texts in an order of their own."""
    return (
        ImageOut(image.patches_BPW[image_order], image.pooled_BMW[image_order], image.grid),
        TextOut(
            *(getattr(text, field)[text_order] for field in ("tokens_BKLW", "pooled_BKW", "mask_BKL", "special_BKL"))
        ),
    )


@torch.no_grad()
def vectors(objective, image, text):
    """What evaluation sees of them: features of the images and of each image's first text."""
    need = frozenset({"global", "patches", "branches", "tokens"})
    global_ND, patches, branches_NKD = objective.image_features(image, need)
    global_MD, tokens_MLD = objective.text_features(text, need)
    count = len(image.patches_BPW)
    patches = {path: patches_NPD.clone() for path, patches_NPD in patches.items()}
    return (
        ImageFeatures(tuple(map(str, range(count))), global_ND, branches_NKD, patches, image.grid),
        TextFeatures(("",) * count, global_MD, tokens_MLD, text.mask_BKL[:, 0]),
    )
