"""The two-tower model: towers and objective as one module, which data parallelism wraps as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import objective_options
from sparc_bench.cards.card import Strict
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError, is_short_of_memory, reason
from sparc_bench.objective import Ctx, ImageOut, Objective, TextOut, Tokens
from sparc_bench.two_towers.architecture import InitRecord, TrunkRecord, architecture_of
from sparc_bench.two_towers.image_transform import HALF, normalise
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.towers import TowerPair

TRUNK = "towers.image.trunk."
"""Prefix of the image trunk's tensors."""


class TwoTowerModel(nn.Module):
    """Both towers with an objective; the forward pass goes from pixels and tokens to the loss and its parts.

    Args:
        towers: image and text tower.
        objective: the loss with its heads.
        mean: mean of each channel, for the image tower's input.
        std: standard deviation of each channel, for the image tower's input.
    """

    def __init__(
        self, towers: TowerPair, objective: Objective, mean: tuple[float, ...] = HALF, std: tuple[float, ...] = HALF
    ) -> None:
        super().__init__()
        self.towers = towers
        self.objective = objective
        self._colours = mean, std

    @property
    def kept_elsewhere(self) -> str | None:
        """Prefix of the tensors that lie in the file of a frozen trunk and not in checkpoints; None for none."""
        return TRUNK if self.towers.source is not None and "image" in self.towers.frozen else None

    @property
    def trunk_record(self) -> TrunkRecord | None:
        """Record of the pretrained image trunk for checkpoints, if there is one."""
        source = self.towers.source
        return None if source is None else TrunkRecord(name=source.name, sha256=source.sha256)

    @property
    def full_context(self) -> bool:
        """Whether the objective needs captions padded to the context."""
        return bool(self.objective.tower_options(self.objective.options).get("full_context", False))

    @property
    def paths(self) -> dict[str, bool]:
        """Patch path -> whether the loss trains it; "global" is trained only where the tower averages its patches."""
        pooled = {"global": self.towers.image.averages}
        return {path: trained and pooled.get(path, True) for path, trained in self.objective.paths.items()}

    def forward(self, images: Tensor, tokens: Tokens, ctx: Ctx) -> dict[str, Tensor]:
        """The objective's dictionary: "loss", its parts and its logged quantities.

        `images` are uint8 pixels BHWC, or what `ImageTower.raw` gave of them, stored.
        """
        given = images if images.is_floating_point() else normalise(images, *self._colours)
        image, text = self.towers(given, tokens)
        return cast("dict[str, Tensor]", self.objective(image, text, ctx))

    def encode_image(self, images: Tensor) -> ImageOut:
        """Output of the image tower, from uint8 pixels BHWC of any input size, or from stored features."""
        if images.is_floating_point():
            return self.towers.image.finish(images.float())
        rows, columns = images.shape[1:3]
        return cast("ImageOut", self.towers.image.at((rows, columns))(normalise(images, *self._colours)))

    def encode_text(self, tokens: Tokens) -> TextOut:
        """Output of the text tower."""
        return cast("TextOut", self.towers.text(tokens))


def objective_and_options(recipe: Recipe, heads: Mapping[str, Any] | None = None) -> tuple[type[Objective], Strict]:
    """A recipe's loss and its options; raises UserError for an unknown name or key.

    `heads`: options of the initial model, for keys that the recipe leaves out.
    """
    loss: type[Objective] = discovery.load("objectives", recipe.objective).Objective
    return loss, objective_options(recipe, discovery.load, heads)


def build_model(
    recipe: Recipe, tokenizer: Tokenizer, seed: int, init_record: InitRecord | None = None, pretrained: bool = True
) -> TwoTowerModel:
    """A recipe's model with random weights drawn from a seed.

    Args:
        recipe: the recipe.
        tokenizer: of the model.
        seed: of the random weights.
        init_record: record of the model that `init` names.
        pretrained: whether a pretrained image trunk gets its weights; False where a checkpoint holds them.

    Raises:
        UserError: sizes that do not go together, or for which there is no memory; a trunk whose weights are missing or
            another model's.
    """
    try:
        return _built(recipe, tokenizer, seed, init_record, pretrained)
    except (RuntimeError, MemoryError) as error:
        if not is_short_of_memory(error):
            raise
        raise UserError(
            f"There is too little memory to build the model of {recipe.name} ({reason(error)}): lower the sizes in its "
            "recipe, or take a machine with more memory."
        ) from None


def _built(
    recipe: Recipe, tokenizer: Tokenizer, seed: int, init_record: InitRecord | None, pretrained: bool
) -> TwoTowerModel:
    loss, options = objective_and_options(recipe, init_record.heads if init_record else None)
    architecture = architecture_of(recipe, init_record)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = loss.tower_options(options).get("branches", 0)
        towers = architecture.build(tokenizer, branches, pretrained)
        objective = loss(towers.image.width, towers.text.width, options)
    towers.freeze(recipe.freeze)
    image_transform = architecture.image_transform(recipe.name)
    return TwoTowerModel(towers, objective, image_transform.mean, image_transform.std)
