"""Hard negatives for captions of photos: two words or phrases of a caption change places, as in training NegCLIP.

The rule is after Yuksekgonul et al. 2023 (arXiv 2210.01936): two noun phrases, nouns, adjectives, adverbs or verbs.
Exchanges that leave a caption true are passed over where its parts of speech show them: members of a list ("a man and a
woman"), adjectives of one noun ("big brown dog"), verbs without a noun between them, adverbs without a noun and a verb
between them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from sparc_bench.metrics.content_words import hanta_tags
from sparc_bench.scenes.random_stream import RandomStream

Kind = Literal["phrase", "noun", "adjective", "adverb", "verb"]
Rule = Literal["swap", "swap_unlike", "replace"]
Tagger = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Function from the lower-case words and punctuation marks of a caption to their C5 tags."""


class Negative(NamedTuple):
    """A caption made false.

    Attributes:
        text: the caption after the edit.
        rule: "swap" exchanges two of one kind and form (two plurals, two participles); "swap_unlike" two of one kind
            in different forms, where there are no others; "replace" puts another noun in the place of one, where there
            is nothing to exchange.
        kind: what was exchanged; None if replaced.
    """

    text: str
    rule: Rule
    kind: Kind | None


class _Swap(NamedTuple):
    kind: Kind
    first: tuple[int, int]
    second: tuple[int, int]
    alike: bool


_TOKEN = re.compile(r"'s\b|'\w+|\w+(?:-\w+)*|[^\w\s]")
_OF_LETTER = {
    "A": ("AT0", "DPS"),
    "D": ("DT0",),
    "C": ("CRD", "ORD"),
    "K": ("CJC", "PUN"),
    "S": ("POS",),
    "O": ("PRF",),
    "N": ("NN", "NP"),
    "J": ("AJ",),
    "R": ("AV0",),
    "V": ("VV",),
}
_LETTERS = {tag: letter for letter, tags in _OF_LETTER.items() for tag in tags}
"""Tag, or its first two letters -> letter, as in `_PHRASE`."""
# "black and white" stands before one noun; "group of" belongs to its noun after an article or a number; "front" in "in
# front of" is no noun phrase
_PHRASE = re.compile(r"(?:[ACD]+J*N+O)?(?:A[CJ]*V|[AD])?(?:[CJ]|(?<=J)K(?=J))*(?:N+S[CJ]*)*N+(?![NO])")
_MUTUAL = frozenset({"with", "near", "beside", "alongside", "next", "to", "by", "&", "/"})
"""Words by which, as by "and", each of two things stands to the other."""
_NEVER = frozenset({"other", "same", "many", "several", "few", "different"})
"""Words tagged as adjectives or adverbs that say nothing of a thing's look."""
_INSTEAD = (
    *(("ball", "balls"), ("camera", "cameras"), ("tree", "trees")),
    *(("bench", "benches"), ("boat", "boats"), ("horse", "horses")),
)
"""Nouns that are frequent in Flickr8k's training captions, each of a kind of its own."""
_VOWEL = re.compile(r"(?!uni|use|one\b|eu)[aeiou]")


def negative_of(caption: str, tags: Tagger = hanta_tags, stream: RandomStream | None = None) -> Negative:
    """The hard negative of a caption, which differs from it by more than case; it depends on the caption alone.

    The kind is drawn from those that the caption offers, then the pair; unless a stream is given, the draw is keyed by
    the lower-case caption. "a" and "an" follow the word after them, and a capital stays at the beginning, so that
    grammar gives away less.

    Raises:
        UserError: HanTa is not installed.
    """
    spans = [match.span() for match in _TOKEN.finditer(caption)]
    words = tuple(caption[start:end].lower() for start, end in spans)
    tagged = tags(words)
    stream = stream or RandomStream("swapped words", caption.lower())
    swaps = list(_swaps(words, tagged))
    for rule in ("swap", "swap_unlike"):
        fitting = [swap for swap in swaps if swap.alike == (rule == "swap")]
        kinds = list(dict.fromkeys(swap.kind for swap in fitting))
        if kinds:
            kind = stream.choice(kinds)
            chosen = stream.choice([swap for swap in fitting if swap.kind == kind])
            return Negative(_exchanged(caption, spans, tagged, chosen), rule, kind)
    return Negative(_replaced(caption, spans, words, tagged, stream), "replace", None)


def negatives_of(
    captions: Mapping[str, Sequence[str]], tags: Tagger = hanta_tags
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Negatives of every image's captions, in their order, and a sentence that counts them by rule.

    Args:
        captions: image -> its captions.
        tags: part-of-speech tagger.
    """
    made = {name: [negative_of(caption, tags) for caption in texts] for name, texts in captions.items()}
    count = Counter(negative.rule for negatives in made.values() for negative in negatives)
    note = (
        f"Of {count.total():,} negatives, {count['swap']:,} exchange two words or phrases of one form, "
        f"{count['swap_unlike']:,} of different forms, and {count['replace']:,} replace a noun."
    )
    return {name: tuple(negative.text for negative in negatives) for name, negatives in made.items()}, note


def _letters(words: Sequence[str], tags: Sequence[str]) -> str:
    """One letter per word for its part of speech, as in `_PHRASE`."""
    return "".join(
        "L" if word in _MUTUAL else _LETTERS.get(tag) or _LETTERS.get(tag[:2], "-")
        for word, tag in zip(words, tags, strict=True)
    )


def _swaps(words: Sequence[str], tags: Sequence[str]) -> Iterator[_Swap]:
    """All exchanges of two different words or phrases that may make the caption false."""
    letters = _letters(words, tags)
    phrases = [match.span() for match in _PHRASE.finditer(letters)]
    inside = {at for start, end in phrases for at in range(start, end)}
    outside = [at for at in range(len(words)) if at not in inside]

    for a, b in combinations(phrases, 2):
        listed = all(letters[at] in "KL" for at in outside if a[1] <= at < b[0])
        one, other = words[a[1] - 1], words[b[1] - 1]
        said, of_other = ([words[at] for at in range(s, e - 1) if letters[at] not in "AD"] for s, e in (a, b))
        bare = not said and not of_other
        alike = tags[a[1] - 1] == tags[b[1] - 1]
        if alike and one != other and not (listed and said == of_other):
            yield _Swap("noun", (a[1] - 1, a[1]), (b[1] - 1, b[1]), alike)
        if not listed and not (alike and bare) and (one, said) != (other, of_other):
            yield _Swap("phrase", a, b, alike)
        if not (listed and one == other):
            for i, j in ((i, j) for i in range(*a) for j in range(*b) if letters[i] == letters[j] == "J"):
                if words[i] != words[j] and _NEVER.isdisjoint((words[i], words[j])):
                    yield _Swap("adjective", (i, i + 1), (j, j + 1), tags[i] == tags[j])

    for i, j in combinations([at for at in outside if letters[at] in "VR" and words[at] not in _NEVER], 2):
        apart = any(i < start < j for start, _ in phrases) and (letters[i] == "V" or "V" in letters[i:j])
        if letters[i] == letters[j] and words[i] != words[j] and apart:
            kind: Kind = "verb" if letters[i] == "V" else "adverb"
            yield _Swap(kind, (i, i + 1), (j, j + 1), tags[i] == tags[j])


def _exchanged(caption: str, spans: Sequence[tuple[int, int]], tags: Sequence[str], swap: _Swap) -> str:
    (first, until_first), (second, until_second) = swap.first, swap.second
    a, b = (spans[first][0], spans[until_first - 1][1]), (spans[second][0], spans[until_second - 1][1])
    front, moved_in, moved_out = caption[: a[0]], caption[slice(*b)], caption[slice(*a)]
    if first == 0 and moved_out[0].isupper():
        moved_in = moved_in[0].upper() + moved_in[1:]
        if not tags[0].startswith("NP"):
            moved_out = moved_out[0].lower() + moved_out[1:]
    between = caption[a[1] : b[0]]
    return f"{_before(front, moved_in)}{moved_in}{_before(between, moved_out)}{moved_out}{caption[b[1] :]}"


def _before(text: str, following: str) -> str:
    """The text with the form of a last "a" or "an" that the following word asks for."""
    article = "an" if _VOWEL.match(following.lower()) else "a"
    return re.sub(r"\b([aA])n?(\s+)$", lambda found: found[1] + article[1:] + found[2], text)


def _replaced(
    caption: str, spans: Sequence[tuple[int, int]], words: Sequence[str], tags: Sequence[str], stream: RandomStream
) -> str:
    """The caption with a frequent noun that it lacks, in place of a noun, else of its last word."""
    letters = _letters(words, tags)
    heads = [match.end() - 1 for match in _PHRASE.finditer(letters)]
    heads = heads or [at for at, letter in enumerate(letters) if letter == "N"]
    heads = heads or [at for at, word in enumerate(words) if word[0].isalnum()][-1:]
    if not heads:
        return f"{caption} {_INSTEAD[0][0]}".strip()
    at = stream.choice(heads)
    start, end = spans[at]
    lacking = [pair for pair in _INSTEAD if not any(word.startswith(pair[0]) for word in words)]
    singular, plural = stream.choice(lacking or [pair for pair in _INSTEAD if words[at] not in pair])
    noun = plural if tags[at] == "NN2" else singular
    noun = noun.capitalize() if caption[start].isupper() else noun
    return f"{_before(caption[:start], noun)}{noun}{caption[end:]}"
