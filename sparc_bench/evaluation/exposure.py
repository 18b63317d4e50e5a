"""Exposure of a model to a task in training: its images, its domain, its class names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sparc_bench.cards import photo_lists
from sparc_bench.cards.model_card import dataset_and_split, is_photo_list
from sparc_bench.records.exposure import Exposure
from sparc_bench.records.record import DIGITS, ClassesSeen


def exposure(
    trained_on: Sequence[str],
    dataset: str,
    split: str,
    images: int,
    lists: Mapping[str, int] | None = None,
    photos: Iterable[str] = (),
    classes_from: Iterable[str] = (),
    photos_from: str = "",
) -> Exposure:
    """`none`, `domain`, `N images seen` or `unknown`, from what a model was trained on.

    Photos are compared by the names that data sets share (see `sparc_bench.cards.photo_lists`) where a list says
    which photos an entry of `trained_on` holds; N counts photos. `domain` says that it was trained on other photos
    of the same data set or source, so that it is not zero-shot; `unknown`, that nobody here can tell: nothing is
    stated, or data of which there is no list (a web collection, a user's own data), or a task whose photos have no
    names. A split `all` holds the images of all others.

    A model that was trained on photos with the task's classes (ImageNet's, in whatever benchmark) is exposed to its
    domain, whatever else of its training is unknown: it learned the names that it is asked for.

    Args:
        trained_on: entries DATASET:SPLIT, paths of photo lists, or `unknown` for further unknown data.
        dataset: of the task.
        split: of the task.
        images: of the task.
        lists: of a task on the split `all`: how many of its images are in each of the other splits.
        photos: names of its photos, read once; an empty one where its data set does not know a photo's name.
        classes_from: sources of photos, as photo lists name them, whose classes it scores.
        photos_from: an entry DATASET:SPLIT that holds all of its photos, where their names do not show it.

    Raises:
        UserError: a list that a path names is missing or malformed.

    >>> exposure(["flickr8k:train"], "flickr8k", "test", 1000)
    Exposure(kind='domain', images=0)
    >>> exposure(["imagenet1k:train", "unknown"], "webdataset_folder", "test", 18574, classes_from=["imagenet"])
    Exposure(kind='domain', images=0)
    >>> str(exposure(["flickr8k:train"], "flickr8k", "all", 100, {"train": 81, "val": 13, "test": 6}))
    '81 images seen'
    >>> str(exposure(["coco:karpathy_train"], "coco_instances", "val2017", 2, photos=["coco:632", "coco:724"]))
    '2 images seen'
    """
    if not trained_on:
        return Exposure("unknown")
    if ({f"{dataset}:{split}", f"{dataset}:all", photos_from} - {""}) & {*trained_on}:
        return Exposure("seen", images)
    held = [photo_lists.from_file(Path(each)) if is_photo_list(each) else photo_lists.find(each) for each in trained_on]
    seen: set[str] = set()
    sources: set[str] = set()
    is_told = unsure = blank = False
    for photo in photos:
        is_told = True
        if not photo:
            blank = True
            continue
        answers = [known.has(photo) for known in held if known is not None]
        if True in answers:
            seen.add(photo)
        unsure |= None in answers
        sources.add(photo.partition(":")[0])
    by_split = sum(count for name, count in (lists or {}).items() if f"{dataset}:{name}" in trained_on)
    if seen or by_split:
        return Exposure("seen", max(len(seen), by_split))
    if {*classes_from} & _sources(trained_on, held):
        return Exposure("domain")
    if unsure:
        return Exposure("unknown")
    own = photo_lists.find(f"{dataset}:{split}")
    sources |= {own.source} if own else set()
    trained = {known.source for known in held if known is not None and known.source}
    if trained & sources or any(dataset_and_split(entry)[0] == dataset for entry in trained_on):
        return Exposure("domain")
    nameless = own is None and (blank or not is_told)
    return Exposure("unknown" if None in held or (trained and nameless) else "none")


def _sources(trained_on: Sequence[str], held: Sequence[photo_lists.PhotoSet | None]) -> set[str]:
    """Sources of all photos that a model was trained on, as far as they are known."""
    named = {source for entry in trained_on if not is_photo_list(entry) for source in photo_lists.sources_of(entry)}
    return named | {known.source for known in held if known is not None}


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
