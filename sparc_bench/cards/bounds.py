"""Bounds of the numbers in cards: types with a least and a greatest value, and their words for `show`.

The bounds are generous: what lies outside of them is a slip of the keyboard, or takes more memory than there is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

Pixels = Annotated[int, Field(ge=1, le=4096)]
"""Rows or columns of an image, or of a patch."""

Width = Annotated[int, Field(ge=1, le=16_384)]
"""Width of a tower or of the joint space."""

Depth = Annotated[int, Field(ge=1, le=256)]
"""Number of layers."""

Heads = Annotated[int, Field(ge=1, le=256)]
"""Number of attention heads; a divisor of the width."""

Context = Annotated[int, Field(ge=3, le=4096)]
"""Tokens of a text; three are BOS, one token and EOS."""

Vocabulary = Annotated[int, Field(ge=259, le=1_000_000)]
"""Size of a vocabulary: padding, BOS, EOS and 256 bytes at least."""

Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Number of training steps."""

Batch = Annotated[int, Field(ge=1, le=1_000_000)]
"""Number of images in a step."""

Count = Annotated[int, Field(ge=0, le=10_000_000_000)]
"""Number of things, which can be none."""

Number = Annotated[int, Field(ge=1, le=10_000_000_000)]
"""Number of things, at least one."""

Share = Annotated[float, Field(ge=0, le=1)]
"""Fraction of a whole."""

Deviation = Annotated[float, Field(gt=0, le=1)]
"""Standard deviation of values from 0 to 1."""

Stage = Annotated[int, Field(ge=0, le=255)]
"""Stage or layer of a model, from 0."""

Rate = Annotated[float, Field(gt=0, le=100)]
"""Learning rate."""

TowerRate = Annotated[float, Field(ge=0, le=100)]
"""Learning rate of one tower; 0 leaves it as it is."""

Temperature = Annotated[float, Field(gt=0, le=100)]
"""Temperature of a softmax."""

Weight = Annotated[float, Field(ge=0, le=1000)]
"""Factor of a part of the loss."""

Bias = Annotated[float, Field(ge=-1000, le=1000)]
"""Addend of a logit."""

Momentum = Annotated[float, Field(ge=0, lt=1)]
"""Share of a running mean that a step keeps."""

Norm = Annotated[float, Field(gt=0, le=1_000_000)]
"""Length of a gradient."""

Scale = Annotated[float, Field(ge=1, le=1_000_000)]
"""Inverse temperature."""

Captions = Annotated[int, Field(ge=1, le=256)]
"""Captions of an image in a step."""

Prototypes = Annotated[int, Field(ge=2, le=100_000)]
"""Number of prototypes."""

Iterations = Annotated[int, Field(ge=1, le=1_000_000)]
"""Most iterations of a solver."""

Strength = Annotated[float, Field(ge=0, le=1e12)]
"""Inverse strength of a penalty."""

Area = Annotated[float, Field(ge=0, le=1e12)]
"""Length or area in pixels."""

Trials = Annotated[int, Field(ge=4, le=100_000)]
"""Number of settings that a study tries for each recipe."""

Seeds = Annotated[int, Field(ge=1, le=10_000)]
"""Number of trainings of one setting."""

CpuSeconds = Annotated[float, Field(gt=0, le=1e9)]
"""CPU time of a training."""

Real = Annotated[float, Field(ge=-1e12, le=1e12)]
"""A number of either sign."""

Whole = Annotated[int, Field(ge=-1_000_000_000_000, le=1_000_000_000_000)]
"""A whole number of either sign."""

Epsilon = Annotated[float, Field(gt=0, le=1)]
"""Small addend of a denominator."""

LARGEST_MODEL = 20_000_000_000
"""Parameters of a tower, at most."""

MOST_PATCHES = 65_536
"""Patches of an image, at most."""


def parameters(width: int, depth: int, vocabulary: int = 0) -> int:
    """Parameters of a transformer, about: twelve squares of its width a layer, and its embeddings."""
    return 12 * width * width * depth + vocabulary * width


def refuse_large_tower(width: int, depth: int, vocabulary: int = 0) -> None:
    """Raise ValueError for a transformer with more parameters than any machine would hold."""
    if parameters(width, depth, vocabulary) > LARGEST_MODEL:
        billions = parameters(width, depth, vocabulary) / 1e9
        raise ValueError(
            f"width {width} and depth {depth} are {billions:.0f} billion parameters, above the "
            f"{LARGEST_MODEL // 10**9} billion that are taken: lower them"
        )


def refuse_uneven_heads(width: int, heads: int) -> None:
    """Raise ValueError for a width that the attention heads do not share evenly."""
    if width % heads:
        raise ValueError(f"width {width} is no multiple of heads {heads}: change one of them")


def refuse_many_patches(side: int) -> None:
    """Raise ValueError for more patches in a square of `side` rows and columns than attention can hold."""
    if side * side > MOST_PATCHES:
        raise ValueError(
            f"{side * side:,} patches are above the {MOST_PATCHES:,} that are taken: lower size, or raise patch"
        )


def bounds(field: FieldInfo) -> tuple[Any, ...]:
    """The constraints of a field and of the values within it, as pydantic keeps them."""
    return (*field.metadata, *_within(field.annotation))


def is_number(annotation: Any) -> bool:  # noqa: ANN401 - any field's annotation
    """Whether values of a type are numbers, or hold some."""
    if annotation in (int, float):
        return True
    return get_origin(annotation) is not Literal and any(is_number(each) for each in get_args(annotation))


def in_words(field: FieldInfo) -> str:
    """The bounds of a field, as `show` prints them; empty without both ends.

    >>> from pydantic import BaseModel
    >>> class Table(BaseModel):
    ...     lr: Rate | None = None
    ...     name: str = ""
    >>> [in_words(field) for field in Table.model_fields.values()]
    ['above 0 to 100', '']
    """
    ends = {key: value for each in bounds(field) for key in _WORDS if (value := getattr(each, key, None)) is not None}
    low, high = (next((f"{_WORDS[key]}{ends[key]:,}" for key in of if key in ends), "") for of in _ENDS)
    return f"{low} to {high}" if low and high else ""


_WORDS = {"ge": "", "gt": "above ", "le": "", "lt": "under "}
_ENDS = (("ge", "gt"), ("le", "lt"))


def _within(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any field's annotation
    if get_origin(annotation) is Annotated:
        inner, *found = get_args(annotation)
        kept = [each for one in found for each in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return (*kept, *_within(inner))
    return tuple(each for part in get_args(annotation) for each in _within(part))
