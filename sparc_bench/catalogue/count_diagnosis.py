"""The likely mistake behind wrong counts: another split, one caption instead of five, one image for each caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Counts = Mapping[str, int]
Published = Mapping[str, Counts]
"""Name of a split -> its counts."""


@dataclass(frozen=True)
class Diagnosis:
    """A mistake that the counts on disk point to (a clause) and its fix."""

    what: str
    fix: str


def diagnose(expected: Counts, found: Counts, own: Published, others: Published | None = None) -> Diagnosis | None:
    """The likely mistake behind counts on disk that differ from the expected ones; None where it is not clear.

    Args:
        expected: counts of the task's [expect].
        found: counts on disk, under the same names and others.
        own: published splits of the task's data set.
        others: published splits of other data sets, named only where all of two or more counts agree.

    >>> splits = {"train2017": {"images": 118287}, "val2017": {"images": 5000}}
    >>> diagnose({"images": 5000}, {"images": 118287}, splits)
    Diagnosis(what='which is train2017 (118,287 images)', fix='put val2017 in its place')
    """
    meant = [split for split, counts in own.items() if _agree(expected, counts, expected)]
    wrong = {split: counts for split, counts in own.items() if split not in meant}
    replace = f"put {' or '.join(meant) or 'the split that the task is about'} in its place"
    about_captions = _captions(expected, found)
    if about_captions is not None:
        return about_captions
    same = _matching(found, wrong, expected)
    if same:
        return Diagnosis(f"which is {_either(same, own)}", replace)
    if "images" in found and found["images"] != expected.get("images", found["images"]):
        alike = [split for split, counts in wrong.items() if counts.get("images") == found["images"]]
        if alike:
            return Diagnosis(f"as many images as {_either(alike, own)}", replace)
    elsewhere = others or {}
    same = _matching(found, elsewhere, expected, at_least=2)
    return Diagnosis(f"the counts of {_either(same, elsewhere)}", replace) if same else None


def same_split(found: Counts, published: Published) -> list[str]:
    """The published splits with the counts that were found, as far as both are known."""
    return _matching(found, published, {})


def in_words(counts: Counts) -> str:
    """Counts in words, without zeros.

    >>> in_words({"images": 5000, "captions": 25014, "masks": 0})
    '5,000 images, 25,014 captions'
    """
    return ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)


def _matching(found: Counts, published: Published, asked: Counts, at_least: int = 1) -> list[str]:
    """The splits that agree with `found` in the largest number of counts, which is no less than `at_least`."""
    shared = {split: len(_shared(found, counts, asked)) for split, counts in published.items()}
    same = [split for split, counts in published.items() if _agree(found, counts, asked) and shared[split] >= at_least]
    most = max((shared[split] for split in same), default=0)
    return [split for split in same if shared[split] == most]


def _agree(found: Counts, split: Counts, asked: Counts) -> bool:
    """Whether a published split agrees in every count that is asked for or not 0."""
    shared = _shared(found, split, asked)
    return bool(shared) and all(split[name] == found[name] for name in shared)


def _shared(found: Counts, split: Counts, asked: Counts) -> list[str]:
    return [name for name in split if name in found and (name in asked or found[name])]


def _captions(expected: Counts, found: Counts) -> Diagnosis | None:
    images, captions, wanted = found.get("images", 0), found.get("captions", 0), expected.get("captions", 0)
    of_images = expected.get("images", images)
    if not images or not of_images or not captions or not wanted or captions == wanted != images:
        return None
    each = _number(round(wanted / of_images))
    if images == captions == wanted != of_images:
        return Diagnosis(
            f"every caption an image of its own, where an image has {each}", "give an image all its captions"
        )
    if captions == images and wanted > of_images:
        return Diagnosis(f"one caption for each image where {each} were published", "read all the captions")
    if images != of_images:
        return None
    if captions % images == 0 and wanted > captions:
        fewer = f"{_number(captions // images)} captions for each image where some have more"
        return Diagnosis(fewer, "read all the captions")
    if wanted % images == 0 and captions > wanted:
        return Diagnosis(f"more than {each} captions for some images", f"read {each} of each image")
    return None


def _either(names: list[str], published: Published) -> str:
    """Names of splits with their counts, which are written once where they are equal.

    >>> _either(["a", "b"], {"a": {"images": 1000}, "b": {"images": 1000}})
    'a or b (1,000 images)'
    """
    same = {in_words(published[name]) for name in names}
    if len(same) == 1:
        return f"{' or '.join(names)} ({same.pop()})"
    return " or ".join(f"{name} ({in_words(published[name])})" for name in names)


def _number(number: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven")
    return words[number] if number < len(words) else f"{number:,}"
