"""The two towers that every objective shares; a recipe's own: a timm vision transformer, open_clip's text transformer.

Shapes: B batch, K captions per image, L text tokens, P patches, W width of a tower, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Self, cast

import open_clip.transformer
import timm
import torch
from torch import Tensor, nn

from sparc_bench.cards.recipe import ImageTower, TextTower
from sparc_bench.errors import UserError
from sparc_bench.objective import ImageOut, TextOut, Tokens

Side = Literal["image", "text"]


class ImageSide(nn.Module):
    """An image tower: normalised pixels BCHW to `ImageOut`.

    Attributes:
        width: W.
        grid: rows and columns of patches.
        averages: whether the pooled output is the average of the patches, so that a loss on it trains them.
    """

    width: int
    grid: tuple[int, int]
    averages: bool


class TextSide(nn.Module):
    """A text tower: `Tokens` to `TextOut`.

    Attributes:
        width: W.
        context: most tokens of a text, BOS and EOS among them.
    """

    width: int
    context: int


class ImageTrunk(ImageSide):
    """Patch outputs of a timm vision transformer, and their average (the paper's pooling, section 2: no [CLS]).

    With `branches` it has so many class tokens instead of the average: each sees itself and the patches but no other,
    the patches see them all (Holistic CLIP, arXiv 2412.00440).
    """

    def __init__(self, card: ImageTower, branches: int = 0) -> None:
        super().__init__()
        self.branches = branches
        self.averages = not branches
        changes = {"patch_size": card.patch, "embed_dim": card.width, "depth": card.depth, "num_heads": card.heads}
        changes = {key: value for key, value in changes.items() if value is not None}
        if branches:
            # each has a position embedding of its own: timm starts the tokens themselves almost equal
            changes |= {"reg_tokens": branches, "no_embed_class": False}
        try:
            self.trunk = timm.create_model(
                card.model, img_size=card.size, class_token=False, global_pool="", num_classes=0, **changes
            )
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise UserError(
                f"timm cannot make '{card.model}' with {card.size} px and {changes} ({error}): "
                "name a vision transformer of timm and sizes that divide."
            ) from None
        self.width = self.trunk.num_features
        self.grid = cast("tuple[int, int]", tuple(self.trunk.patch_embed.grid_size))
        if branches:
            self.register_buffer("sees_SS", _branch_mask(branches, self.grid[0] * self.grid[1]), persistent=False)

    def forward(self, pixels_BCHW: Tensor) -> ImageOut:
        """Patches after the last norm, row-major over the grid; their average, or the branches."""
        if not self.branches:
            patches_BPW = self.trunk.forward_features(pixels_BCHW)
            return ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), self.grid)
        outputs_BSW = self.trunk.forward_features(pixels_BCHW, attn_mask=self.sees_SS)
        return ImageOut(outputs_BSW[:, self.branches :], outputs_BSW[:, : self.branches], self.grid)


def _branch_mask(branches: int, patches: int) -> Tensor:
    """Which position (row) sees which (column), branches first: all but a branch another branch."""
    sees_SS = torch.ones(branches + patches, branches + patches, dtype=torch.bool)
    sees_SS[:branches, :branches] = torch.eye(branches, dtype=torch.bool)
    return sees_SS


class TextTrunk(TextSide):
    """Token outputs of open_clip's text transformer.

    Bidirectional with a padding mask by default, so that padding moves no word vector and "red" sees its noun.
    """

    def __init__(self, card: TextTower, vocabulary: int, pad_id: int) -> None:
        super().__init__()
        self.causal = card.causal
        self.context = card.context
        self.pad_id = pad_id
        self.width = card.width
        self.trunk = open_clip.transformer.TextTransformer(
            context_length=card.context,
            vocab_size=vocabulary,
            width=card.width,
            heads=card.heads,
            layers=card.depth,
            output_dim=None,
            no_causal_mask=not card.causal,
            use_pad_mask=not card.causal,
            pad_id=pad_id,
            pool_type="first",
            proj_type="none",
            output_tokens=True,
        )

    def forward(self, tokens: Tokens) -> TextOut:
        """Tokens after the last norm, and their average over the words."""
        batch, captions, length = tokens.ids_BKL.shape
        ids_XL = tokens.ids_BKL.flatten(0, 1)
        if self.causal and length < self.context:
            # open_clip adds its causal mask at full context length
            ids_XL = nn.functional.pad(ids_XL, (0, self.context - length), value=self.pad_id)
        _, tokens_XLW = self.trunk(ids_XL)
        tokens_BKLW = tokens_XLW[:, :length].unflatten(0, (batch, captions))
        weight_BKL1 = tokens.mask_BKL.unsqueeze(-1).to(tokens_BKLW.dtype)
        pooled_BKW = (tokens_BKLW * weight_BKL1).sum(2) / weight_BKL1.sum(2).clamp_min(1)
        return TextOut(tokens_BKLW, pooled_BKW, tokens.mask_BKL, tokens.special_BKL)


class TowerPair(nn.Module):
    """Both towers; the loop and the encoder call nothing else."""

    def __init__(self, image: ImageSide, text: TextSide) -> None:
        super().__init__()
        self.image, self.text = image, text
        self._frozen: frozenset[Side] = frozenset()

    def freeze(self, sides: Collection[Side]) -> None:
        """Let these towers stay as they are: no gradients, nothing kept for a backward pass, always evaluation mode."""
        self._frozen = frozenset(sides)
        for side in self._frozen:
            getattr(self, side).requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the towers that learn."""
        super().train(mode)
        for side in self._frozen:
            getattr(self, side).eval()
        return self

    def forward(self, pixels_BCHW: Tensor, tokens: Tokens) -> tuple[ImageOut, TextOut]:
        """Outputs of both towers for one batch."""
        return self.image(pixels_BCHW), self.text(tokens)


class Towers(TowerPair):
    """The towers of a recipe's own cards, with random weights."""

    def __init__(self, image: ImageTower, text: TextTower, vocabulary: int, pad_id: int, branches: int = 0) -> None:
        super().__init__(ImageTrunk(image, branches), TextTrunk(text, vocabulary, pad_id))


def no_weight_decay(name: str, parameter: Tensor) -> bool:
    """The usual exclusions: vectors and scalars (biases, norms, temperatures), class tokens, position embeddings."""
    return parameter.ndim < 2 or name.endswith(("pos_embed", "positional_embedding", "reg_token"))
