"""What a checkpoint says of its towers, so that they are built again without whatever they began from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.cards.recipe import ImageTower, Recipe, TextTower
from sparc_bench.errors import UserError
from sparc_bench.two_towers.clip_pixels import ClipPixels, clip_pixels
from sparc_bench.two_towers.framing import Framing
from sparc_bench.two_towers.open_clip_towers import PAD_ID, open_clip_towers
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.towers import TowerPair, Towers


class OwnTowers(Strict):
    """The towers of a recipe's tables [image] and [text]."""

    kind: Literal["own"] = "own"
    image: ImageTower
    text: TextTower

    def framing(self, name: str) -> Framing:
        """The whole image squashed to a square; `name` is the model's, for errors."""
        size = (self.image.size, self.image.size)
        return Framing(ClipPixels(name, size, "squash", self.image.interpolation, flexible=False))

    def tokenizer(self, state: str) -> Tokenizer:
        """open_clip's vocabulary with a padding id of its own, or the recipe's own one."""
        return Tokenizer(self.text.context, state)

    def build(self, tokenizer: Tokenizer, branches: int) -> TowerPair:
        """Both towers with random weights."""
        return Towers(self.image, self.text, tokenizer.vocabulary, tokenizer.pad_id, branches)


class OpenClipTowers(Strict):
    """The towers of an open_clip checkpoint."""

    kind: Literal["open_clip"] = "open_clip"
    config: dict[str, Any] = Field(description="`model_cfg` of open_clip_config.json")
    preprocess: dict[str, Any] = Field(description="its `preprocess_cfg`, with the size")

    def framing(self, name: str) -> Framing:
        """The model's own preprocessing; `name` is the model's, for errors."""
        patch = self.config["vision_cfg"].get("patch_size", 16)
        opens, colours = clip_pixels(self.preprocess, name, (patch, patch), flexible=False)
        return Framing(opens, colours.mean, colours.std)

    def tokenizer(self, state: str) -> Tokenizer:  # noqa: ARG002 - nothing to keep of it
        """open_clip's own, as the model's configuration has it."""
        text = self.config["text_cfg"]
        clean = (text.get("tokenizer_kwargs") or {}).get("clean", "lower")
        return Tokenizer(text.get("context_length", 77), pad_id=PAD_ID, clean=clean)

    def build(self, tokenizer: Tokenizer, branches: int) -> TowerPair:  # noqa: ARG002 - the vocabulary is the model's
        """Both towers with random weights.

        Raises:
            UserError: an objective that wants several class tokens.
        """
        if branches:
            raise UserError(
                f"This objective wants {branches} class tokens and a tower of open_clip has one: leave `init` out, or "
                "name another objective."
            )
        return open_clip_towers(self.config)


class Start(Strict):
    """What a recipe's `init` was, as the checkpoints of its run keep it."""

    model: str = Field(description="the card's name")
    weights_hash: str = Field(description="sha256 of its file")
    trained_on: tuple[str, ...] = Field(description="data sets, as dataset:split; `unknown` where nobody knows")
    towers: Annotated[OwnTowers | OpenClipTowers, Field(discriminator="kind")]
    heads: dict[str, Any] = Field(description="options of an objective's heads that are its, where a recipe names none")


def architecture_of(recipe: Recipe, start: Start | None) -> OwnTowers | OpenClipTowers:
    """The towers of a recipe: those that it starts from, else those of its cards."""
    if start is not None:
        return start.towers
    image, text = recipe.own_towers
    return OwnTowers(image=image, text=text)
