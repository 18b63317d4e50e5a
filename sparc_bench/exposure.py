"""What a model may have seen of a task before: the task's images, its domain, its class names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from sparc_bench.cards import UNKNOWN
from sparc_bench.records import DIGITS, ClassesSeen


def exposure(
    trained_on: Sequence[str], dataset: str, split: str, images: int, lists: Mapping[str, int] | None = None
) -> str:
    """`none`, `domain`, `N images seen` or `unknown`, from the entries dataset:split of a model card's `trained_on`.

    An entry `unknown` stands for further data that nobody knows. A split `all` holds the images of all others.

    Args:
        trained_on: the entries.
        dataset: of the task.
        split: of the task.
        images: of the task.
        lists: of a task on the split `all`: how many of its images are in each of the other splits.

    >>> exposure(["flickr8k:train"], "flickr8k", "test", 1000)
    'domain'
    >>> exposure(["flickr8k:train"], "flickr8k", "all", 100, {"train": 81, "val": 13, "test": 6})
    '81 images seen'
    """
    if not trained_on:
        return "unknown"
    if {f"{dataset}:{split}", f"{dataset}:all"} & {*trained_on}:
        return f"{images} images seen"
    seen = sum(count for name, count in (lists or {}).items() if f"{dataset}:{name}" in trained_on)
    if seen:
        return f"{seen} images seen"
    if any(entry.partition(":")[0] == dataset for entry in trained_on):
        return "domain"
    return "unknown" if UNKNOWN in trained_on else "none"


def training_captions(words: str, train_words: Mapping[str, int]) -> int:
    """At most how many training captions hold all words of a class name: the count of its rarest word.

    >>> training_captions("fire hydrant", {"fire": 30, "hydrant": 2})
    2
    """
    return min((train_words.get(word, 0) for word in re.findall(r"[a-z]+", words.lower())), default=0)


def classes_seen(
    metric: str, words: Mapping[str, str], train_words: Mapping[str, int], group_values: Mapping[str, float]
) -> ClassesSeen | None:
    """The headline's mean over classes that the training captions name, by name or prompt words, and over the others.

    Args:
        metric: name of the metric that `group_values` belong to.
        words: class -> the words put into prompts.
        train_words: word -> training captions that hold it.
        group_values: class -> value of the headline; classes without items are absent or NaN.

    Returns:
        None where no value belongs to a class.
    """
    if not group_values.keys() & words.keys():
        return None
    # a prompt may add words of its own ("a red object"): the class is named where its plain name is
    counts = {
        name: max(training_captions(text, train_words), training_captions(name, train_words))
        for name, text in words.items()
    }
    scored = {name: value for name, value in group_values.items() if name in counts and not np.isnan(value)}
    seen = [value for name, value in scored.items() if counts[name] > 0]
    unseen = [value for name, value in scored.items() if counts[name] == 0]
    return ClassesSeen(
        training_captions=counts,
        metric=metric,
        seen=round(float(np.mean(seen)), DIGITS) if seen else None,
        seen_classes=len(seen),
        unseen=round(float(np.mean(unseen)), DIGITS) if unseen else None,
        unseen_classes=len(unseen),
    )
