"""Architectures: the configuration in a checkpoint from which its towers, transform and tokenizer are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from sparc_bench.cards.card import Strict
from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.name import Name
from sparc_bench.cards.recipe import Recipe, TextTowerTable
from sparc_bench.errors import UserError

if TYPE_CHECKING:  # the metadata of a file are read before torch is imported
    from sparc_bench.two_towers.image_transform import ImageTransform
    from sparc_bench.two_towers.tokenizer import Tokenizer
    from sparc_bench.two_towers.towers import TowerPair


class OwnArchitecture(Strict):
    """Configuration of the towers that a recipe's tables [image] and [text] describe."""

    kind: Literal["own"] = "own"
    image: ImageTowerTable
    text: TextTowerTable

    def image_transform(self, name: str) -> ImageTransform:
        """Transform that squashes the whole image to a square; `name`: the model's name, for errors."""
        from sparc_bench.two_towers.image_transform import ImageTransform
        from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess
        from sparc_bench.two_towers.trunk import trunk_input

        opened = trunk_input(self.image)
        size = (opened.size, opened.size)
        return ImageTransform(OpenClipPreprocess(name, size, "squash", opened.interpolation), opened.mean, opened.std)

    def tokenizer(self, state: str) -> Tokenizer:
        """Tokenizer with open_clip's vocabulary and an extra id for padding, or with the vocabulary in `state`."""
        from sparc_bench.two_towers.tokenizer import Tokenizer

        return Tokenizer(self.text.context, state)

    def build(self, tokenizer: Tokenizer, branches: int, pretrained: bool) -> TowerPair:
        """Both towers with random weights, or with the image trunk's pretrained ones where the table names some."""
        from sparc_bench.two_towers.towers import RecipeTowers

        return RecipeTowers(self.image, self.text, tokenizer.vocabulary, tokenizer.pad_id, branches, pretrained)


class OpenClipArchitecture(Strict):
    """Configuration of the towers of an open_clip checkpoint."""

    kind: Literal["open_clip"] = "open_clip"
    config: dict[str, Any] = Field(description="table `model_cfg` of open_clip_config.json")
    preprocess: dict[str, Any] = Field(description="table `preprocess_cfg` of the same file, with the image size")

    @field_validator("config")
    @classmethod
    def _has_both_sides(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not all(isinstance(config.get(side), dict) for side in ("vision_cfg", "text_cfg")):
            raise ValueError("has the tables vision_cfg and text_cfg")
        return config

    def image_transform(self, name: str) -> ImageTransform:
        """Transform with the checkpoint's own preprocessing; `name`: the model's name, for errors."""
        from sparc_bench.two_towers.image_transform import ImageTransform
        from sparc_bench.two_towers.open_clip_preprocess import open_clip_preprocess

        patch = self.config["vision_cfg"].get("patch_size", 16)
        opens, colours = open_clip_preprocess(self.preprocess, name, (patch, patch), flexible=True)
        return ImageTransform(opens, colours.mean, colours.std)

    def tokenizer(self, state: str) -> Tokenizer:  # noqa: ARG002 - the vocabulary is open_clip's
        """open_clip's tokenizer with the context length and text cleaning of the model's configuration."""
        from sparc_bench.two_towers.open_clip_towers import PAD_ID
        from sparc_bench.two_towers.tokenizer import Tokenizer

        text = self.config["text_cfg"]
        clean = (text.get("tokenizer_kwargs") or {}).get("clean", "lower")
        return Tokenizer(text.get("context_length", 77), pad_id=PAD_ID, clean=clean)

    def build(self, tokenizer: Tokenizer, branches: int, pretrained: bool) -> TowerPair:  # noqa: ARG002 - the model's
        """Both towers with random weights.

        Raises:
            UserError: the objective needs several class tokens.
        """
        from sparc_bench.two_towers.open_clip_towers import open_clip_towers

        if branches:
            raise UserError(
                f"This objective wants {branches} class tokens and a tower of open_clip has one: leave `init` out, or "
                "name another objective."
            )
        return open_clip_towers(self.config)


class InitRecord(Strict):
    """Record of the model that a recipe's `init` names, kept in every checkpoint of the run."""

    model: Name = Field(description="name of its card")
    weights_hash: str = Field(description="sha256 of its weights file")
    trained_on: tuple[str, ...] = Field(description="its data sets, as dataset:split; `unknown` for undocumented ones")
    towers: Annotated[OwnArchitecture | OpenClipArchitecture, Field(discriminator="kind")]
    heads: dict[str, Any] = Field(description="head options (dim, image_head) that apply unless the recipe sets them")


class TrunkRecord(Strict):
    """Record of a pretrained image trunk, kept in every checkpoint of the run."""

    name: str = Field(description="where its weights come from: a package with its version, timm's name, a file")
    sha256: str = Field(description="sha256 of the file of weights")


def architecture_of(recipe: Recipe, init_record: InitRecord | None) -> OwnArchitecture | OpenClipArchitecture:
    """Architecture of a run: that of the initial model, else that of the recipe's tables [image] and [text]."""
    if init_record is not None:
        return init_record.towers
    image, text = recipe.own_towers
    return OwnArchitecture(image=image, text=text)
