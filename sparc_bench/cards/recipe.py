"""Recipes: cards of models that are trained here, `reference_models/NAME.toml` with an `objective`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sparc_bench.cards.bounds import (
    Batch,
    Context,
    Count,
    Depth,
    Epsilon,
    Heads,
    Momentum,
    Norm,
    Number,
    Rate,
    Share,
    Steps,
    TowerRate,
    Vocabulary,
    Weight,
    Width,
    refuse_large_tower,
    refuse_uneven_heads,
)
from sparc_bench.cards.card import Extended, Strict, parse, read_toml
from sparc_bench.cards.image_tower import FROM_HUB, PACKAGE, ImageTowerTable
from sparc_bench.cards.model_card import UNKNOWN, ModelCard, ProbeValues, Weights, refuse_reference_table
from sparc_bench.cards.name import ModelName


class TextTowerTable(Strict):
    """open_clip's text transformer with token outputs."""

    width: Width = Field(default=768, description="embedding width")
    depth: Depth = Field(default=12, description="number of layers")
    heads: Heads = Field(default=12, description="number of attention heads")
    context: Context = Field(
        default=55, description="context length in tokens with BOS and EOS (SPARC, section 4.1: 55)"
    )
    causal: bool = Field(default=False, description="whether attention is causal (SPARC: not stated)")
    tokenizer: Literal["open_clip", "own"] = Field(
        default="open_clip", description="open_clip's BPE, or a vocabulary built from the recipe's own captions"
    )
    vocabulary: Vocabulary = Field(default=1000, description="size of an own vocabulary")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse_uneven_heads(self.width, self.heads)
        refuse_large_tower(self.width, self.depth, self.vocabulary)
        return self


class TrainData(Strict):
    """Training and validation data of a recipe."""

    dataset: str
    split: str = "train"
    options: dict[str, Any] = Field(default={}, description="options of the data set's reader")
    val_split: str = "val"
    val_options: dict[str, Any] = Field(default={}, description="options of the reader that differ on the val split")
    photo_list: str = Field(
        default="",
        description="photo list of the training images (DATASET:SPLIT, such as coco:karpathy_train), for readers of "
        "several data sets (karpathy, coco_captions); without one the model's exposure to a task is unknown",
    )
    false_negatives: Literal["mask", "rare", "keep"] = Field(
        default="keep",
        description="captions that are true of other images too: mask (such pairs are left out of the negatives), "
        "rare (training only on captions that are true of under 1 % of images) or keep (they are negatives)",
    )
    max_unreadable: Share = Field(
        default=0.01, description="largest share of unreadable images that is skipped; more stop the run"
    )


class Optim(Strict):
    """AdamW with linear warm-up, then cosine decay to zero."""

    lr: Rate = Field(default=1e-3, description="peak learning rate of heads and towers")
    image_lr: TowerRate | None = Field(default=None, description="peak learning rate of the image tower; none: lr")
    text_lr: TowerRate | None = Field(default=None, description="peak learning rate of the text tower; none: lr")
    weight_decay: Weight = Field(
        default=0.1, description="weight decay, without biases, norms, position embeddings and temperatures"
    )
    betas: tuple[Momentum, Momentum] = (0.9, 0.98)
    eps: Epsilon = 1e-6
    warmup: Count = Field(default=100, description="warm-up steps")
    clip: Norm | None = Field(default=None, description="largest gradient norm; none: no clipping")


class StepCounts(Strict):
    """Images and captions in one training step; methods with different counts are ranked separately."""

    images: Number
    captions: Number
    negatives: Count = Field(default=0, description="hard-negative captions, written to be false of their image")


class Validate(Strict):
    """Tasks that a training is watched by; they decide no weight and enter no hash."""

    tasks: tuple[str, ...] = Field(
        min_length=1,
        description="tasks, named as for eval; each is scored on the val split of its data set, whatever split its "
        "card names",
    )
    limit: Number | None = Field(default=None, description="only so many images of each task; none: all")


with warnings.catch_warnings():
    # the table shadows BaseModel.validate, which pydantic keeps for its version 1 and nothing here calls
    warnings.filterwarnings("ignore", 'Field name "validate"')

    class _Watched(Extended):
        validate: Validate | None = Field(  # type: ignore[assignment]
            default=None, description="tasks that are scored every eval_every steps; none: retrieval on data.val_split"
        )

        FORMER: ClassVar[Mapping[str, Any]] = {"validate": None}


class Recipe(_Watched):
    """One model that this project trains: data, towers, objective and optimiser of its training."""

    name: ModelName
    title: str
    source: str
    objective: str = Field(description="loss, a module of sparc_bench/objectives")
    objective_options: dict[str, Any] = Field(default={}, description="options of the objective")
    data: TrainData
    init: str | None = Field(
        default=None,
        description="model to fine-tune, named as for eval (a card, a run folder, open_clip:NAME/TAG); its towers, "
        "tokenizer and image size are used, and its heads where their names and shapes are the objective's (without a "
        "temperature or bias set in objective_options)",
    )
    freeze: tuple[Literal["image", "text"], ...] = Field(
        default=(),
        description="frozen towers, of `init` or a pretrained image trunk; heads and temperature are always trained",
    )
    image: ImageTowerTable | None = Field(default=None, description="image tower; absent with `init`")
    text: TextTowerTable | None = Field(default=None, description="text tower; absent with `init`")
    optim: Optim = Optim()
    batch_size: Batch
    steps: Steps
    eval_every: Steps = Field(description="steps between evaluations on val")
    checkpoint_every: Steps | None = Field(
        default=None, description="steps between checkpoints, beside those before evaluations; none: eval_every"
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast if ten steps of the recipe are faster with it, else float32"
    )
    sees: StepCounts | None = Field(
        default=None, description="declared images and captions of a step; a training with other counts stops"
    )
    attempts: Count = Field(default=0, description="number of settings tried on the val split before these")
    notes: str = Field(default="", description="settings that were tried, and reasons for these")
    cost: str = Field(default="", description="measured cost of the training")
    reaches: str = Field(default="", description="measured scores of the trained model")
    weights: Weights | None = None
    probe: ProbeValues | None = Field(
        default=None, exclude=True, description="probe values of the kept weights; in no hash"
    )
    _probe_table = model_validator(mode="before")(refuse_reference_table)

    @property
    def own_towers(self) -> tuple[ImageTowerTable, TextTowerTable]:
        """Tables of both towers, for a recipe without `init`."""
        assert self.image is not None
        assert self.text is not None
        return self.image, self.text

    def model_card(self) -> ModelCard:
        """Card of the trained model; with `init` its training data are partly unknown (a run folder knows them)."""
        trunk = () if self.image is None or not self.image.pretrained else self.image.pretrained_on or (UNKNOWN,)
        return ModelCard(
            name=self.name,
            title=self.title,
            family="own",
            source=self.source,
            weights=self.weights,
            probe=self.probe,
            trained_on=(
                self.data.photo_list or f"{self.data.dataset}:{self.data.split}",
                *trunk,
                *([UNKNOWN] if self.init else []),
            ),
        )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.optim.warmup >= self.steps:
            raise ValueError(f"optim.warmup ({self.optim.warmup}) must be under steps ({self.steps})")
        for side in ("image", "text"):
            if self.init is None and getattr(self, side) is None:
                raise ValueError(f"the table [{side}] is missing: add it, or name a model to start from with init")
            if self.init is not None and getattr(self, side) is not None:
                raise ValueError(f"the towers are those of init = '{self.init}': leave the table [{side}] out")
            knows = self.init is not None or (side == "image" and self.image is not None and self.image.pretrained)
            if side in self.freeze and not knows:
                remedy = "set init or image.pretrained" if side == "image" else "set init"
                raise ValueError(f"freeze names the {side} tower, which knows nothing yet: {remedy}, or leave it out")
            if side in self.freeze and getattr(self.optim, f"{side}_lr") is not None:
                raise ValueError(f"the {side} tower is frozen and has no learning rate: leave optim.{side}_lr out")
        if self.image is not None and "image" not in self.freeze:
            fixed = next((key for key in ("projection", "position_mean") if getattr(self.image, key)), None)
            if fixed:
                raise ValueError(f"image.{fixed} is fitted to a frozen trunk: add freeze = ['image'], or leave it out")
        return self


def read_model(path: Path) -> ModelCard | Recipe:
    """Model card or recipe of a file; with an `objective` it is a recipe."""
    values = read_toml(path)
    cls: type[ModelCard | Recipe] = Recipe if "objective" in values else ModelCard
    image = values.get("image")
    if cls is Recipe and isinstance(image, dict) and isinstance(image.get("pretrained"), str):
        image["pretrained"] = _beside(path, image["pretrained"])
    card = parse(cls, {"name": path.stem, **values}, str(path))
    if isinstance(card, ModelCard):
        card._folder = path.parent.resolve()
    return card


def _beside(path: Path, pretrained: str) -> str:
    """`pretrained` of a card's table [image], a file as an absolute path: the card names it relative to itself."""
    named = not pretrained or pretrained == FROM_HUB or pretrained.startswith(PACKAGE)
    return pretrained if named else str(path.parent.resolve() / Path(pretrained).expanduser())


def training_settings(recipe: Recipe) -> dict[str, Any]:
    """Settings of a recipe that determine the trained weights.

    They leave out titles, notes, figures, the spacing of checkpoints, the tasks that it is watched by, what pretrained
    weights were trained on, and where a file of them lies, which its sha256 stands for.
    """
    prose = {"name", "title", "source", "notes", "cost", "reaches", "attempts", "weights"}
    settings = recipe.model_dump(exclude=prose | {"checkpoint_every", "validate"})
    if recipe.image is not None:
        settings["image"].pop("pretrained_on", None)
        if recipe.image.is_file:
            settings["image"]["pretrained"] = "a file"
    return settings
