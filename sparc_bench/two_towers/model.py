"""Towers and objective as one module, so that data parallelism wraps one thing and every tower call goes through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import objective_options
from sparc_bench.cards.card import Strict
from sparc_bench.cards.recipe import Recipe
from sparc_bench.objective import Ctx, ImageOut, Objective, TextOut, Tokens
from sparc_bench.two_towers.architecture import Start, architecture_of
from sparc_bench.two_towers.framing import HALF, normalise
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.towers import TowerPair


class TrainStep(nn.Module):
    """One forward pass from pixels and tokens to the loss and its parts.

    Args:
        towers: both towers.
        objective: the loss with its heads.
        mean: of the channels, as the image tower takes them.
        std: likewise.
    """

    def __init__(
        self, towers: TowerPair, objective: Objective, mean: tuple[float, ...] = HALF, std: tuple[float, ...] = HALF
    ) -> None:
        super().__init__()
        self.towers = towers
        self.objective = objective
        self._colours = mean, std

    @property
    def full_context(self) -> bool:
        """Whether the objective wants captions padded to the context."""
        return bool(self.objective.tower_options(self.objective.options).get("full_context", False))

    @property
    def paths(self) -> dict[str, bool]:
        """The objective's patch paths; the one of the pooled output is trained where that averages the patches."""
        pooled = {"global": self.towers.image.averages}
        return {path: trained and pooled.get(path, True) for path, trained in self.objective.paths.items()}

    def forward(self, pixels_BHWC: Tensor, tokens: Tokens, ctx: Ctx) -> dict[str, Tensor]:
        """The objective's dictionary: "loss", its parts and what it logs."""
        image, text = self.towers(normalise(pixels_BHWC, *self._colours), tokens)
        return cast("dict[str, Tensor]", self.objective(image, text, ctx))

    def encode_image(self, pixels_BHWC: Tensor) -> ImageOut:
        """The image tower alone, on uint8 pixels."""
        return cast("ImageOut", self.towers.image(normalise(pixels_BHWC, *self._colours)))

    def encode_text(self, tokens: Tokens) -> TextOut:
        """The text tower alone."""
        return cast("TextOut", self.towers.text(tokens))


def objective_of(recipe: Recipe, heads: Mapping[str, Any] | None = None) -> tuple[type[Objective], Strict]:
    """A recipe's loss and its options; raises UserError for a name or key that nothing knows.

    `heads`: options that a start brings, for keys that the recipe leaves out.
    """
    loss: type[Objective] = discovery.load("objectives", recipe.objective).Objective
    return loss, objective_options(recipe, discovery.load, heads)


def build(recipe: Recipe, tokenizer: Tokenizer, seed: int, start: Start | None = None) -> TrainStep:
    """A recipe's model with its random weights for a seed; `start` is what its `init` is."""
    loss, options = objective_of(recipe, start.heads if start else None)
    architecture = architecture_of(recipe, start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = loss.tower_options(options).get("branches", 0)
        towers = architecture.build(tokenizer, branches)
        objective = loss(towers.image.width, towers.text.width, options)
    towers.freeze(recipe.freeze)
    framing = architecture.framing(recipe.name)
    return TrainStep(towers, objective, framing.mean, framing.std)
