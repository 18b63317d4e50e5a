"""Towers and objective as one module, so that data parallelism wraps one thing and every tower call goes through it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sparc_bench import discover
from sparc_bench.cards import Recipe, Strict, parse
from sparc_bench.objective import Ctx, ImageOut, Objective, TextOut, Tokens
from sparc_bench.training.tokenizer import Tokenizer
from sparc_bench.training.towers import Towers, normalise


class TrainStep(nn.Module):
    """One forward pass from pixels and tokens to the loss and its parts."""

    def __init__(self, towers: Towers, objective: Objective) -> None:
        super().__init__()
        self.towers = towers
        self.objective = objective

    @property
    def full_context(self) -> bool:
        """Whether the objective wants captions padded to the context."""
        return bool(self.objective.tower_options(self.objective.options).get("full_context", False))

    def forward(self, pixels_BHWC: Tensor, tokens: Tokens, ctx: Ctx) -> dict[str, Tensor]:
        """The objective's dictionary: "loss", its parts and what it logs."""
        image, text = self.towers(normalise(pixels_BHWC), tokens)
        return cast("dict[str, Tensor]", self.objective(image, text, ctx))

    def encode_image(self, pixels_BCHW: Tensor) -> ImageOut:
        """The image tower alone, at evaluation."""
        return cast("ImageOut", self.towers.image(pixels_BCHW))

    def encode_text(self, tokens: Tokens) -> TextOut:
        """The text tower alone, at evaluation."""
        return cast("TextOut", self.towers.text(tokens))


def objective_of(recipe: Recipe) -> tuple[type[Objective], Strict]:
    """A recipe's loss and its options; raises UserError for a name or key that nothing knows."""
    module = discover.load("objectives", recipe.objective)
    return module.Objective, parse(
        module.Objective.Options, recipe.objective_options, f"{recipe.name}: [objective_options]"
    )


def build(recipe: Recipe, tokenizer: Tokenizer, seed: int) -> TrainStep:
    """A recipe's model with its initial weights for a seed."""
    loss, options = objective_of(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = loss.tower_options(options).get("branches", 0)
        towers = Towers(recipe.image, recipe.text, tokenizer.vocabulary, tokenizer.pad_id, branches)
        objective = loss(towers.image.width, towers.text.width, options)
    return TrainStep(towers, objective)
