"""The cards: one benchmark task, one third-party model, one recipe. Frozen, strict, one TOML file each.

A key that no card knows is an error that names the nearest valid one. Names are file names, so a card has no name key.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeGuard, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from sparc_bench.errors import UserError, nearest

AnyCard = TypeVar("AnyCard", bound="Strict")

UNKNOWN = "unknown"
"""Among the data sets that a model was trained on: there were others, which nobody knows."""


def is_photo_list(entry: str) -> bool:
    """Whether an entry of `trained_on` is the path of a photo list, not DATASET:SPLIT."""
    return entry.endswith(".toml")


class Strict(BaseModel):
    """Base of every card and option table: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class TaskCard(Strict):
    """One benchmark task: `tasks/NAME.toml`."""

    name: str = Field(description="the file's name")
    title: str = Field(description="one line, as a table would print it")
    family: Literal[
        "classification",
        "retrieval",
        "segmentation",
        "regions",
        "detection",
        "faithfulness",
        "compositionality",
        "probes",
    ]
    dataset: str = Field(description="a module of sparc_bench/datasets")
    split: str
    data: dict[str, Any] = Field(default={}, description="options of the data set's reader")
    protocol: str = Field(description="a module of sparc_bench/protocols")
    options: dict[str, Any] = Field(default={}, description="every option of the protocol; there are no defaults")
    headline: str = Field(description="the metric that the leaderboard prints, as the record names it")
    suites: tuple[str, ...] = Field(default=(), description="suites that this task belongs to")
    references: tuple[Literal["constant", "random", "untrained", "oracle"], ...] = Field(
        default=("constant", "random", "untrained"), description="the rows that stand beside every result"
    )
    expect: dict[str, int] = Field(default={}, description="counts of the published split; others stop the run")
    chance: dict[str, float] = Field(default={}, description="metric -> what guessing scores, where it is known")
    sample: bool = Field(default=False, description="only a part of the published benchmark: records are samples")
    source: str = Field(description="where data, protocol and numbers come from")
    needs: str = Field(default="", description="what it needs on disk, for a person")


class Published(Strict):
    """A published number of a model, to compare with."""

    task: str
    metric: str
    value: float
    tolerance: float
    source: str


class Weights(Strict):
    """The weights that a card means, pinned: a file of this machine, or one of the Hugging Face hub."""

    file: str = Field(description="path relative to the card, absolute or with ~; with `hub`: path in that repository")
    sha256: str | None = Field(default=None, description="of the file; only a commit of the hub can do without")
    steps: int | None = Field(default=None, description="training steps behind them")
    hub: str | None = Field(default=None, description="OWNER/NAME of a repository of huggingface.co")
    revision: str | None = Field(default=None, description="the repository's commit, 40 hexadecimal digits")

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 has 64 digits of 0-9 and a-f, '{self.sha256}' has not: copy it whole")
        if self.hub is None and self.revision is not None:
            raise ValueError("revision is a commit of the hub: name its repository with hub = 'OWNER/NAME'")
        if self.hub is None and self.sha256 is None:
            raise ValueError(f"nothing pins {self.file}: add its sha256 (sha256sum {self.file})")
        if self.hub is not None and self.revision is None and self.sha256 is None:
            raise ValueError(f"nothing pins {self.file}: add its sha256, or the revision (a commit of {self.hub})")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision '{self.revision}' can move: give the 40 digits of its commit")
        return self

    @model_serializer(mode="wrap")
    def _as_before_the_hub(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # model_hash of records that were made before cards could name the hub
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key not in ("hub", "revision")}


class Reference(Strict):
    """What a correct set-up of a model gives on the probe of `sparc-bench verify`, which prints this table."""

    probe: int = Field(description="version of the probe")
    image_image: tuple[float, ...] = Field(default=(), description="cosines of the pairs of its images")
    text_text: tuple[float, ...] = Field(default=(), description="cosines of the pairs of its texts")
    image_text: tuple[float, ...] = Field(description="scores of its images with its texts, image by image")
    tolerance: float = Field(description="largest difference that is allowed")
    source: str = Field(description="the set-up that it was measured on")


class ModelCard(Strict):
    """One model that can be evaluated: a third party's checkpoint, or what a recipe trained."""

    name: str
    title: str
    family: str = Field(description="a module of sparc_bench/encoders")
    source: str = Field(description="paper, repository")
    weights: Weights | None = None
    options: dict[str, Any] = Field(default={}, description="options of the encoder family")
    trained_on: tuple[str, ...] = Field(
        default=(),
        description="what it was trained on: dataset:split, the path of a photo list (.toml) beside the card, or "
        "`unknown` for more that nobody knows",
    )
    published: tuple[Published, ...] = ()
    reference: Reference | None = Field(default=None, exclude=True, description="decides no number: in no hash")
    _folder: Path = PrivateAttr(default=Path())

    @property
    def trained_on_here(self) -> tuple[str, ...]:
        """`trained_on`, with the paths of photo lists as this machine finds them."""
        return tuple(str(self._folder / each) if is_photo_list(each) else each for each in self.trained_on)


class ImageTower(Strict):
    """A timm vision transformer without class token; its patch outputs are used."""

    model: str = Field(default="vit_base_patch16_224", description="a timm model name")
    size: int = Field(default=224, description="input height and width in pixels; images are squashed to it")
    patch: int | None = Field(default=None, description="patch edge in pixels, where it differs from the model's")
    width: int | None = Field(default=None, description="embedding width, where it differs from the model's")
    depth: int | None = Field(default=None, description="layers, where they differ from the model's")
    heads: int | None = Field(default=None, description="attention heads, where they differ from the model's")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class TextTower(Strict):
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
    objective_options: dict[str, Any] = {}
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
    image: ImageTower | None = Field(default=None, description="left out with `init`")
    text: TextTower | None = Field(default=None, description="left out with `init`")
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
    reference: Reference | None = Field(default=None, exclude=True, description="of the kept weights: in no hash")

    @property
    def own_towers(self) -> tuple[ImageTower, TextTower]:
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
            reference=self.reference,
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


def parse(cls: type[AnyCard], values: Mapping[str, Any], where: str) -> AnyCard:
    """Check `values` against `cls`; `where` names the file or table in the error.

    Raises:
        UserError: a key is unknown, missing or of another type; the sentence names the nearest valid key.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(cls, error)}") from None


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    # a misspelt key is both unknown and missing: the unknown one tells more
    first = next((each for each in error.errors() if each["type"] == "extra_forbidden"), error.errors()[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known: type[BaseModel] = cls
        for part in first["loc"][:-1]:
            annotation = known.model_fields[str(part)].annotation if str(part) in known.model_fields else None
            tables = [each for each in (annotation, *get_args(annotation)) if _is_table(each)]
            if not tables:
                break
            known = tables[0]
        return f"unknown key '{key}': {nearest(str(first['loc'][-1]), known.model_fields)}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing: add it."
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict) and first["type"] == "value_error":  # of a whole table
        return f"[{key}] {message}." if key else f"{message}."
    return f"'{key}' {message[:1].lower()}{message[1:]}, but is {first['input']!r}: change it."


def _is_table(annotation: Any) -> TypeGuard[type[BaseModel]]:  # noqa: ANN401 - whatever a field may be
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary; raises UserError with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the path.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no valid TOML ({error}): mend that line.") from None


def read_task(path: Path) -> TaskCard:
    """The task card in a file."""
    return parse(TaskCard, {"name": path.stem, **read_toml(path)}, str(path))


def read_model(path: Path) -> ModelCard | Recipe:
    """The model card or recipe in a file: a file with an `objective` is a recipe."""
    values = read_toml(path)
    cls: type[ModelCard | Recipe] = Recipe if "objective" in values else ModelCard
    card = parse(cls, {"name": path.stem, **values}, str(path))
    if isinstance(card, ModelCard):
        card._folder = path.parent.resolve()
    return card


def canonical_hash(value: Any) -> str:  # noqa: ANN401 - anything JSON can hold
    """Sha256 of canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
