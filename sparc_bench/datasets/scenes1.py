"""The embedded data set `scenes1`: scenes rendered from a seed, the same on every machine, with complete annotations.

The name is the version: it enters every hash, and the scenes of a version never change. Images are 64 x 64 pixels.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Extended, canonical_hash
from sparc_bench.dataset import Example, Examples, Region
from sparc_bench.errors import UserError, nearest
from sparc_bench.facets import Attributes
from sparc_bench.images.item import ImageItem
from sparc_bench.scenes.captions import SceneCaption, write_captions
from sparc_bench.scenes.contact_sheet import draw_sheet
from sparc_bench.scenes.generate import draw_scene
from sparc_bench.scenes.minimal_pairs import EDITS, draw_pair
from sparc_bench.scenes.negatives import Kind, write_negatives
from sparc_bench.scenes.random_stream import RandomStream, fold
from sparc_bench.scenes.render import boxes, instance_mask, open_scene, semantic_map
from sparc_bench.scenes.scene import Scene
from sparc_bench.scenes.truth import SceneForms, caption_truth
from sparc_bench.scenes.words import word_tags
from sparc_bench.scenes.world import COLOURS, FIELDS, SHAPES

NAME = "scenes1"
TITLE = "Rendered scenes of 1 to 4 coloured shapes with exact truth"
SOURCE = "rendered by sparc_bench.scenes; version 1"
NEEDS_ON_DISK = ""
SPLITS = {"train": "train", "val": "val", "test": "test"}
PROVIDES = frozenset(
    {
        *("captions", "several_captions", "negatives", "labels", "boxes", "masks", "semantic"),
        *("truth", "pairs", "word_tags", "scene", "attributes"),
    }
)

Edit = Literal["replace", "swap"]
_ALL_EDITS: tuple[Edit, ...] = ("replace", "swap")

_DEFAULT_NUMBER = {"train": 20000, "val": 1000, "test": 1000}


class Options(Extended):
    """Kind and number of scenes."""

    kind: Literal["scenes", "single", "pairs"] = Field(
        default="scenes",
        description="scenes: 1 to 4 objects; single: one object, balanced over shape x colour; pairs: minimal pairs",
    )
    n: Number | None = Field(
        default=None, description="number of images (pairs: groups); none: 20000 in train, else 1000"
    )
    label: Literal["shape", "colour"] = Field(default="shape", description="meaning of labels and semantic masks")
    negatives: tuple[Kind, ...] = Field(
        default=(),
        description="kinds of edits that make a false caption of every caption (kind = scenes); empty: no negatives",
    )
    edits: tuple[Edit, ...] = Field(
        default=_ALL_EDITS, min_length=1, description="edits of the groups to read (kind = pairs; n counts these)"
    )
    FORMER: ClassVar[Mapping[str, Any]] = {"negatives": (), "edits": _ALL_EDITS}

    @field_validator("edits")
    @classmethod
    def _in_their_order(cls, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        return _ALL_EDITS if set(edits) == set(_ALL_EDITS) else edits

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.negatives and self.kind != "scenes":
            raise ValueError(f"negatives are written for kind = 'scenes', not '{self.kind}': leave them out")
        if self.edits != _ALL_EDITS and self.kind != "pairs":
            raise ValueError(f"edits belong to kind = 'pairs', not '{self.kind}': leave them out")
        return self


def read(root: Path | None, split: str, options: Options) -> Examples:  # noqa: ARG001 - every reader takes a root
    """The examples of a split.

    Images of the kinds scenes and single have five captions, one of each of `captions.KINDS`, named in `caption_tags`.
    Every example has the facets `SceneForms` and `Attributes` (colour, pattern and size of each object, but for what is
    the label); `label` is set for images of one object. With `options.negatives`,
    `negatives` holds a false caption for every caption; scenes and captions do not depend on it. A minimal pair is two
    consecutive examples with one `group`, one caption each, the other's caption as `negatives`, and tags `edit` and
    `of`; `options.edits` selects the first pairs with these edits.

    Raises:
        UserError: the split does not exist.
    """
    if split not in SPLITS:
        raise UserError(f"{NAME} has no split '{split}': {nearest(split, SPLITS)}")
    number = options.n or _DEFAULT_NUMBER[split]
    examples: list[Example] = []
    with _collector_paused():
        if options.kind == "pairs":
            wanted = (index for index in count() if EDITS[index % len(EDITS)][0] in options.edits)
            for index in islice(wanted, number):
                examples += _pair(split, index, options.label)
        else:
            for index in range(number):
                examples.append(_captioned(split, options.kind, index, options.label, options.negatives))
    return Examples(
        dataset=NAME,
        split=split,
        examples=tuple(examples),
        classes=FIELDS[options.label],
        fingerprint=canonical_hash({"version": NAME, "split": split, **options.model_dump(), "n": number}),
        pixels_hash=canonical_hash({"version": NAME}),  # an id says all about its image
        caption_truth=caption_truth,
        keep_captions=keep_captions,
        word_tags=word_tags(),
    )


def keep_captions(example: Example, kept: Sequence[int]) -> Example:
    """The example with some of its captions, their negatives and their logical forms."""
    whole = example.facet(SceneForms)
    return replace(
        example,
        captions=tuple(example.captions[k] for k in kept),
        caption_tags=tuple(example.caption_tags[k] for k in kept),
        negatives=tuple(example.negatives[k] for k in kept) if example.negatives else (),
        facets=(SceneForms(whole.scene, tuple(whole.forms[k] for k in kept)), example.facet(Attributes)),
    )


def contact_sheet(path: Path) -> None:
    """Write a PNG that shows scenes with boxes and captions, and minimal pairs."""
    draw_sheet(
        path,
        title=f"{NAME}: {TITLE.lower()}",
        scenes=read(None, "val", Options(n=12)).examples,
        pairs=read(None, "val", Options(kind="pairs", n=12)).examples,
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Context without garbage collection, which would take a third of the time and find no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _captioned(split: str, kind: str, index: int, label: str, edits: tuple[Kind, ...]) -> Example:
    stream = RandomStream(fold(NAME, split, kind), index)
    scene = draw_scene(stream, split, *(_balanced(index) if kind == "single" else ()))
    captions = write_captions(scene, stream)
    example = _example(f"{NAME}/{split}/{kind}/{index:06d}", scene, captions, label)
    if not edits:
        return example
    negatives = write_negatives(captions, scene, edits, RandomStream(fold(NAME, split, kind, "negatives"), index))
    return replace(example, negatives=tuple(negative.text for negative in negatives))


def _balanced(index: int) -> tuple[int, tuple[str, str]]:
    """Number of objects (1), with shape and colour, all balanced as far as the number of images allows."""
    turn, at = divmod(index, len(SHAPES))
    return 1, (SHAPES[at], COLOURS[(at + turn) % len(COLOURS)])


def _pair(split: str, index: int, label: str) -> list[Example]:
    stream = RandomStream(fold(NAME, split, "pairs"), index)
    pair = draw_pair(stream, index, split)
    group = f"{NAME}/{split}/pairs/{index:06d}"
    texts = [caption.text for caption in pair.captions]
    return [
        replace(
            _example(f"{group}/{at}", scene, (caption,), label),
            group=group,
            negatives=(texts[1 - at],),
            tags={"edit": pair.edit, "of": pair.of},
        )
        for at, (scene, caption) in enumerate(zip(pair.scenes, pair.captions, strict=True))
    ]


def _example(name: str, scene: Scene, captions: tuple[SceneCaption, ...], label: str) -> Example:
    classes = FIELDS[label]
    labels = [classes.index(getattr(object_, label)) for object_ in scene.objects]
    attributes = [kind for kind in ("colour", "pattern", "size") if kind != label]
    regions = tuple(
        Region(box, labels[at], float(area), partial(instance_mask, scene, at))
        for at, (box, area) in enumerate(boxes(scene))
    )
    return Example(
        id=name,
        image=ImageItem(name, partial(open_scene, scene)),
        captions=tuple(caption.text for caption in captions),
        caption_tags=tuple(caption.kind for caption in captions),
        label=labels[0] if len(labels) == 1 else None,
        regions=regions,
        semantic=partial(semantic_map, scene, label),
        facets=(
            SceneForms(scene, tuple(caption.form for caption in captions)),
            Attributes(tuple({kind: getattr(object_, kind) for kind in attributes} for object_ in scene.objects)),
        ),
    )
