"""Inputs of a run, read before training: both splits, their pixels or features, the tokenizer, the initial model.

Several runs can share the same inputs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.progress import Progress
from torch import Tensor

from sparc_bench.cards.binding import bind_split
from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.recipe import Recipe
from sparc_bench.dataset import Examples
from sparc_bench.distributed import rank_0_first, rank_and_world
from sparc_bench.errors import UserError
from sparc_bench.terminal import task_bar
from sparc_bench.training.data_needs import refuse_unfilled
from sparc_bench.training.frozen_inputs import counted, frozen_images
from sparc_bench.training.frozen_tower import frozen_tower
from sparc_bench.training.initial_model import InitialModel, initial_model
from sparc_bench.training.loading import Prepared, rare_captions_only
from sparc_bench.training.pixels import load_pixels
from sparc_bench.two_towers.architecture import InitRecord, architecture_of
from sparc_bench.two_towers.image_transform import ImageTransform
from sparc_bench.two_towers.tokenizer import Tokenizer, make_tokenizer


@dataclass(frozen=True)
class RunInputs:
    """Inputs of a recipe's run.

    Attributes:
        train: training split, after the recipe's rule for false negatives.
        val: validation split.
        images: pixels of the training split, or its features where the image tower is frozen.
        val_images: those of the validation split.
        tokenizer: tokenizer of the initial model, else open_clip's or one built from the training captions.
        words: word -> number of training captions that contain it, those of the initial model included; empty where
            the initial model's captions are unknown.
        hashes: "train" and "val" -> hash of that split's images, captions and negatives.
        initial: the initial model, if the recipe names one.
        fitted: buffers of the frozen image tower that were fitted on the training features (see `fitted_buffers`).
    """

    train: Examples
    val: Examples
    images: Prepared
    val_images: Prepared
    tokenizer: Tokenizer
    words: Mapping[str, int]
    hashes: Mapping[str, str]
    initial: InitialModel | None = None
    fitted: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def init_record(self) -> InitRecord | None:
        """Record of the initial model for the run's checkpoints."""
        return None if self.initial is None else self.initial.init_record


def read_run_inputs(recipe: Recipe, data_root: Path | None, device: str = "cpu") -> RunInputs:
    """Read and decode the training and validation data of a recipe, and its initial model.

    `device` computes the features of a frozen image tower.

    Raises:
        UserError: a split is kept for evaluation; data, captions, images or the initial model are missing; there are
            fewer images than a batch holds.
    """
    with task_bar() as progress:
        progress.add_task(f"{recipe.name}: reading {recipe.data.dataset}", total=None, visible=rank_and_world()[0] == 0)
        initial = rank_0_first(partial(initial_model, recipe))
        train, val = read_splits(recipe, data_root)
        refuse_unfilled(recipe, train)
        tokenizer = initial.tokenizer if initial else make_tokenizer(recipe.own_towers[1], train.captions)
        fitted: Mapping[str, Tensor] = {}
        if "image" in recipe.freeze:
            tower = frozen_tower(recipe, tokenizer, initial, device)
            images, val_images, fitted = rank_0_first(partial(frozen_images, recipe, tower, train, val, progress))
        else:
            transform = architecture_of(recipe, initial.init_record if initial else None).image_transform(recipe.name)
            images = rank_0_first(partial(_pixels, train, transform, recipe, progress))
            val_images = rank_0_first(partial(_pixels, val, transform, recipe, progress))
    if len(images) < recipe.batch_size:
        raise UserError(f"{len(images)} images make no batch of {recipe.batch_size}: lower batch_size in the recipe.")
    words, hashes = caption_counts(train.captions), data_hashes(train, val)
    if initial is not None:
        words = {} if initial.words is None else dict(Counter(words) + Counter(initial.words))
    return RunInputs(train, val, images, val_images, tokenizer, words, hashes, initial, fitted)


def read_splits(recipe: Recipe, data_root: Path | None) -> tuple[Examples, Examples]:
    """The training split, after the recipe's rule for false negatives, and the validation split; see `read_split`."""
    train, val = read_split(recipe, data_root, val=False), read_split(recipe, data_root, val=True)
    return rare_captions_only(train) if recipe.data.false_negatives == "rare" else train, val


def data_hashes(train: Examples, val: Examples) -> dict[str, str]:
    """Hash of each split's images, in order, with their captions and negatives."""
    return {
        part: canonical_hash([split.fingerprint, [(each.id, each.captions, each.negatives) for each in split]])
        for part, split in (("train", train), ("val", val))
    }


def read_split(recipe: Recipe, data_root: Path | None, val: bool) -> Examples:
    """The recipe's training or validation split; raises UserError for one that is kept for evaluation."""
    bound = bind_split(recipe, val=val)
    data: Examples = bound.dataset.read(data_root, bound.split, bound.options)
    without = [example.id for example in data if not example.captions]
    if without:
        raise UserError(
            f"{recipe.data.dataset}:{bound.split} has an image without captions ({without[0]}): leave it out."
        )
    return data


def caption_counts(captions: Iterable[str]) -> dict[str, int]:
    """Word -> number of captions that contain it (lower case, letters only)."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(set(re.findall(r"[a-z]+", caption.lower())))
    return dict(counts)


def _pixels(data: Examples, transform: ImageTransform, recipe: Recipe, progress: Progress) -> Prepared:
    with counted(progress, f"{recipe.name}: decoding {data.dataset} {data.split}", len(data)) as count:
        return load_pixels(data, transform, recipe.data.max_unreadable, count)
