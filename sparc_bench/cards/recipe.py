"""The card of a model that is trained here: `reference_models/NAME.toml` with an `objective`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.model_card import UNKNOWN, ModelCard, ProbeValues, Weights, refuse_reference_table


class ImageTowerTable(Strict):
    """A timm vision transformer without class token; its patch outputs are used."""

    model: str = Field(default="vit_base_patch16_224", description="a timm model name")
    size: int = Field(default=224, description="input height and width in pixels; images are squashed to it")
    patch: int | None = Field(default=None, description="patch edge in pixels, where it differs from the model's")
    width: int | None = Field(default=None, description="embedding width, where it differs from the model's")
    depth: int | None = Field(default=None, description="layers, where they differ from the model's")
    heads: int | None = Field(default=None, description="attention heads, where they differ from the model's")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class TextTowerTable(Strict):
    """open_clip's text transformer with token outputs."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    context: int = Field(default=55, description="tokens, BOS and EOS among them (paper section 4.1: 55)")
    causal: bool = Field(default=False, description="true: a token sees only those before it (SPARC: not stated)")
    tokenizer: Literal["open_clip", "own"] = Field(
        default="open_clip", description="open_clip's BPE, or a vocabulary built from the recipe's own captions"
    )
    vocabulary: int = Field(default=1000, description="size of an own vocabulary")


class TrainData(Strict):
    """What a recipe trains and is watched on."""

    dataset: str
    split: str = "train"
    options: dict[str, Any] = Field(default={}, description="options of the data set's reader")
    val_split: str = "val"
    val_options: dict[str, Any] = Field(default={}, description="reader options that differ on val")
    photo_list: str = Field(
        default="",
        description="photo list (DATASET:SPLIT, as coco:karpathy_train) of what is trained on, where a reader of many "
        "files (karpathy, coco_captions) does not tell; without one nobody knows what the model has seen of a task",
    )
    false_negatives: Literal["mask", "rare", "keep"] = Field(
        default="keep",
        description="mask: pairs that the truth matrix marks true are left out of every objective's negatives; "
        "rare: only captions that are true of under 1 % of images are trained on; keep: nothing is done",
    )
    max_unreadable: float = Field(default=0.01, description="share of unreadable images that is skipped, not refused")


class Optim(Strict):
    """AdamW, linear warm-up, then cosine to zero."""

    lr: float = Field(default=1e-3, description="peak learning rate, of heads and of towers without one of their own")
    image_lr: float | None = Field(default=None, description="peak of the image tower, where it differs from lr")
    text_lr: float | None = Field(default=None, description="peak of the text tower, where it differs from lr")
    weight_decay: float = Field(default=0.1, description="not on biases, norms, embeddings' positions, temperatures")
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    warmup: int = Field(default=100, description="steps")
    clip: float | None = Field(default=None, description="gradient norm, or none")


class Sees(Strict):
    """What one training step sees of the data, by which methods are ranked apart."""

    images: int
    captions: int
    negatives: int = Field(default=0, description="captions that are written to be false of their image")


class Recipe(Strict):
    """One model that this project trains: `reference_models/NAME.toml` with a [recipe] of its own."""

    name: str
    title: str
    source: str
    objective: str = Field(description="a module of sparc_bench/objectives")
    objective_options: dict[str, Any] = Field(default={}, description="options of the objective")
    data: TrainData
    init: str | None = Field(
        default=None,
        description="the model that it starts from, as eval takes one (a card, a run folder, open_clip:NAME/TAG); "
        "towers, tokenizer and image size are its own, and so are heads of the objective's names and shapes (but no "
        "temperature or bias that objective_options name)",
    )
    freeze: tuple[Literal["image", "text"], ...] = Field(
        default=(), description="towers of `init` that stay as they are; heads and temperature always learn"
    )
    image: ImageTowerTable | None = Field(default=None, description="left out with `init`")
    text: TextTowerTable | None = Field(default=None, description="left out with `init`")
    optim: Optim = Optim()
    batch_size: int
    steps: int
    eval_every: int = Field(description="steps between evaluations on val")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where a ten-step probe of the recipe is faster with it"
    )
    sees: Sees | None = Field(default=None, description="declared per step; a training that sees anything else stops")
    attempts: int = Field(default=0, description="how many settings were tried on val before these were fixed")
    notes: str = Field(default="", description="what was tried and why it is as it is")
    cost: str = Field(default="", description="what it takes, measured")
    reaches: str = Field(default="", description="what it should reach, measured")
    weights: Weights | None = None
    probe: ProbeValues | None = Field(
        default=None, exclude=True, description="probe values of the kept weights; in no hash"
    )
    _probe_table = model_validator(mode="before")(refuse_reference_table)

    @property
    def own_towers(self) -> tuple[ImageTowerTable, TextTowerTable]:
        """Both towers of a recipe without `init`."""
        assert self.image is not None
        assert self.text is not None
        return self.image, self.text

    def model_card(self) -> ModelCard:
        """The card of the model that this recipe trains; what `init` was trained on is known of its runs alone."""
        return ModelCard(
            name=self.name,
            title=self.title,
            family="own",
            source=self.source,
            weights=self.weights,
            probe=self.probe,
            trained_on=(
                self.data.photo_list or f"{self.data.dataset}:{self.data.split}",
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
            if side in self.freeze and self.init is None:
                raise ValueError(f"freeze names the {side} tower, which knows nothing yet: set init, or leave it out")
            if side in self.freeze and getattr(self.optim, f"{side}_lr") is not None:
                raise ValueError(f"the {side} tower is frozen and has no learning rate: leave optim.{side}_lr out")
        return self


def read_model(path: Path) -> ModelCard | Recipe:
    """The model card or recipe in a file: a file with an `objective` is a recipe."""
    values = read_toml(path)
    cls: type[ModelCard | Recipe] = Recipe if "objective" in values else ModelCard
    card = parse(cls, {"name": path.stem, **values}, str(path))
    if isinstance(card, ModelCard):
        card._folder = path.parent.resolve()
    return card


def training_settings(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the weights (no titles, notes or figures)."""
    return recipe.model_dump(exclude={"name", "title", "source", "notes", "cost", "reaches", "attempts", "weights"})
