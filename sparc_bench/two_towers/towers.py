"""Image and text towers, and those of a recipe: timm's vision transformer and open_clip's text transformer.

Shapes: B batch, K captions per image, L text tokens, P patches, W width of a tower, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Self, cast

import open_clip.transformer
import timm
import torch
from torch import Tensor, nn

from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.recipe import TextTowerTable
from sparc_bench.errors import UserError, is_short_of_memory
from sparc_bench.objective import ImageOut, TextOut, Tokens
from sparc_bench.two_towers.image_tower import ImageTower
from sparc_bench.two_towers.other_sizes import shared_copy
from sparc_bench.two_towers.trunk import TrunkTower, is_trunk
from sparc_bench.weights.trunk_weights import TrunkSource

Side = Literal["image", "text"]


class TextTower(nn.Module):
    """Base of text towers: `Tokens` to `TextOut`.

    Attributes:
        width: width W of the output vectors.
        context: largest number of tokens of a text, BOS and EOS included.
    """

    width: int
    context: int


class RecipeImageTower(ImageTower):
    """Patch outputs of a timm vision transformer, and their average (SPARC section 2: no [CLS]).

    With `branches`, as many class tokens take the place of the average: each attends to itself and the patches but to
    no other class token; the patches attend to all (Holistic CLIP, arXiv 2412.00440).
    """

    def __init__(self, card: ImageTowerTable, branches: int = 0) -> None:
        super().__init__()
        self.branches = branches
        self.averages = not branches
        changes = {"patch_size": card.patch, "embed_dim": card.width, "depth": card.depth, "num_heads": card.heads}
        changes = {key: value for key, value in changes.items() if value is not None}
        if branches:
            # a position embedding for each class token, because timm initialises the tokens almost equal
            changes |= {"reg_tokens": branches, "no_embed_class": False}
        try:
            self.trunk = timm.create_model(
                card.model, img_size=card.size, class_token=False, global_pool="", num_classes=0, **changes
            )
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            if is_short_of_memory(error):
                raise
            raise UserError(
                f"timm cannot make '{card.model}' with {card.size} px and {changes} ({error}): "
                "name a vision transformer of timm and sizes that divide."
            ) from None
        _refuse_cut_edge(card, tuple(self.trunk.patch_embed.patch_size))
        self.width = self.trunk.num_features
        self.grid = cast("tuple[int, int]", tuple(self.trunk.patch_embed.grid_size))
        if branches:
            self.register_buffer("sees_SS", _branch_mask(branches, self.grid[0] * self.grid[1]), persistent=False)

    def at(self, size: tuple[int, int]) -> ImageTower:
        """The tower for another input size; timm's `set_input_size` resizes the positions."""
        embed = self.trunk.patch_embed
        if size == tuple(embed.img_size):
            return self
        if not hasattr(self.trunk, "set_input_size"):
            raise UserError(
                f"timm's {type(self.trunk).__name__} takes {embed.img_size[0]} x {embed.img_size[1]} px only: leave "
                "the size out."
            )
        for pixels, edge in zip(size, embed.patch_size, strict=True):
            if pixels % edge:
                nearest = max(round(pixels / edge), 1) * edge
                raise UserError(f"{pixels} px are no whole number of patches of {edge} px: take {nearest}.")
        tower: RecipeImageTower = shared_copy(self)
        tower.trunk.set_input_size(size)
        tower.grid = cast("tuple[int, int]", tuple(tower.trunk.patch_embed.grid_size))
        if tower.branches:
            sees_SS = _branch_mask(tower.branches, tower.grid[0] * tower.grid[1])
            tower.register_buffer("sees_SS", sees_SS.to(self.get_buffer("sees_SS").device), persistent=False)
        return tower

    def forward(self, pixels_BCHW: Tensor) -> ImageOut:
        """Patches after the last norm, row-major over the grid, and their average or the class tokens."""
        if not self.branches:
            patches_BPW = self.trunk.forward_features(pixels_BCHW)
            return ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), self.grid)
        outputs_BSW = self.trunk.forward_features(pixels_BCHW, attn_mask=self.sees_SS)
        return ImageOut(outputs_BSW[:, self.branches :], outputs_BSW[:, : self.branches], self.grid)


def _refuse_cut_edge(card: ImageTowerTable, patch: tuple[int, ...]) -> None:
    """Raise UserError for an image size that is no multiple of the patch size, of which an edge would not be seen."""
    assert card.size is not None
    if any(card.size % side for side in patch):
        raise UserError(
            f"The patches of '{card.model}' have {patch[0]} x {patch[-1]} pixels, of which image.size ({card.size}) is "
            "no multiple: change image.size, or set image.patch."
        )


def _branch_mask(branches: int, patches: int) -> Tensor:
    """Attention mask (query row, key column), class tokens first: all but one class token to another."""
    sees_SS = torch.ones(branches + patches, branches + patches, dtype=torch.bool)
    sees_SS[:branches, :branches] = torch.eye(branches, dtype=torch.bool)
    return sees_SS


class RecipeTextTower(TextTower):
    """Token outputs of open_clip's text transformer, and their average over the words.

    Attention is bidirectional with a padding mask by default, so that padding changes no word vector and "red" attends
    to its noun.
    """

    def __init__(self, card: TextTowerTable, vocabulary: int, pad_id: int) -> None:
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
            # open_clip's causal mask has full context length
            ids_XL = nn.functional.pad(ids_XL, (0, self.context - length), value=self.pad_id)
        _, tokens_XLW = self.trunk(ids_XL)
        tokens_BKLW = tokens_XLW[:, :length].unflatten(0, (batch, captions))
        weight_BKL1 = tokens.mask_BKL.unsqueeze(-1).to(tokens_BKLW.dtype)
        pooled_BKW = (tokens_BKLW * weight_BKL1).sum(2) / weight_BKL1.sum(2).clamp_min(1)
        return TextOut(tokens_BKLW, pooled_BKW, tokens.mask_BKL, tokens.special_BKL)


class TowerPair(nn.Module):
    """Both towers of a model."""

    def __init__(self, image: ImageTower, text: TextTower) -> None:
        super().__init__()
        self.image: ImageTower = image
        self.text: TextTower = text
        self._frozen: frozenset[Side] = frozenset()

    @property
    def frozen(self) -> frozenset[Side]:
        """The sides that are frozen."""
        return self._frozen

    @property
    def source(self) -> TrunkSource | None:
        """The pretrained weights of the image trunk, if it has some."""
        return self.image.source if isinstance(self.image, TrunkTower) else None

    def freeze(self, sides: Collection[Side]) -> None:
        """Freeze towers: no gradients, no activations kept for a backward pass, always evaluation mode."""
        self._frozen = frozenset(sides)
        self.image.frozen = "image" in sides
        for side in self._frozen:
            getattr(self, side).requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen towers stay in evaluation mode."""
        super().train(mode)
        for side in self._frozen:
            getattr(self, side).eval()
        return self

    def forward(self, images: Tensor, tokens: Tokens) -> tuple[ImageOut, TextOut]:
        """Outputs of both towers for one batch of normalised pixels BCHW, or of stored features BSW."""
        image: ImageOut = self.image(images) if images.ndim == 4 else self.image.finish(images.float())
        return image, self.text(tokens)


class RecipeTowers(TowerPair):
    """The towers of a recipe's tables [image] and [text], with random weights but those of a pretrained trunk."""

    def __init__(
        self,
        image: ImageTowerTable,
        text: TextTowerTable,
        vocabulary: int,
        pad_id: int,
        branches: int = 0,
        pretrained: bool = True,
    ) -> None:
        super().__init__(_image_tower(image, branches, pretrained), RecipeTextTower(text, vocabulary, pad_id))


def _image_tower(card: ImageTowerTable, branches: int, pretrained: bool) -> ImageTower:
    if not is_trunk(card):
        return RecipeImageTower(card, branches)
    if branches:
        raise UserError(
            f"This objective wants {branches} class tokens, which timm's {card.model} as it is does not have: name a "
            "vision transformer without pretrained weights, or another objective."
        )
    return TrunkTower(card, pretrained)


def no_weight_decay(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has no weight decay: vectors, scalars, class tokens and position embeddings, as usual."""
    return parameter.ndim < 2 or name.endswith(("pos_embed", "positional_embedding", "reg_token"))
