"""Word grounding: does the map of a word over an image's patches find the pixels that the word names?

Every word that names something in an image has a map over the model's patch grid, and stands beside a word that names
nothing there, on the same pixels: a model that puts every word on the foreground gains nothing by it.

Shapes: N images, R words in images (an image and a word that names something in it), G images, P patches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field, model_validator

from sparc_bench.cards.bounds import Area, Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, recut
from sparc_bench.errors import UserError
from sparc_bench.metrics.grounding import SCORES, centre_map, map_scores
from sparc_bench.metrics.metric_name import at_path
from sparc_bench.metrics.statistic import Mean, MeanDifference, Statistic
from sparc_bench.protocol import Block, Outcome, Part, Predictions, Work
from sparc_bench.protocols._named_areas import NOUN, NamedArea, NamedAreas, Shape, Word, vocabulary
from sparc_bench.protocols._word_maps import NO_CAPTION, NOT_READ, Maps, WordsAlone, WordsInCaptions
from sparc_bench.protocols.regions import SIZES, untrained_notes

VERSION = 1
TITLE = "word grounding: the map of a word over patches against the pixels it names, beside an absent word"
NEEDS = frozenset({"image", "text", "patches"})
DATA: frozenset[str] = frozenset()

CHUNK = 64
NOUNS, ATTRIBUTES = "noun", "attribute"
LEFT_OUT = ("outside", NO_CAPTION, NOT_READ)
"""Why a word of an image is not scored: no pixel of it is in the patches; no caption has it; no token of it is read."""
ABOUT = ("example", "word", "pixels", "share", "area")
MAPS = ("present", "absent", "function")
DIFFERENCES = ("pointing", "auc")


class Options(Strict):
    """Options of the protocol in a task card."""

    map: Literal["text", "token"]
    """map of a word: the model's score of patches for the word as a text of its own, or for its tokens in a caption"""
    prompts: str
    """prompt set for words alone: a card of tasks/prompts, `openai80` or `openai7`; `bare` with map = "token" """
    classes: str
    """words in the prompts: a card of tasks/classes, or `own`: the data set's own names"""
    words: tuple[Literal["noun", "attribute"], ...] = Field(min_length=1)
    """words that are scored: nouns (the classes), and attributes of the regions"""
    regions: Shape
    """what a word names: masks of regions, their boxes, or the pixels of a class map"""
    absent: Number
    """absent words beside each word, whose scores are averaged; fewer where the image lacks fewer"""
    function_words: tuple[str, ...] = Field(min_length=1)
    """words that name nothing, for the row `function_words`"""
    area_unit: Literal["pixels", "image"]
    """unit of `area_edges`: pixels of the original image, or fractions of the image"""
    area_edges: tuple[Area, Area]
    """least areas, of all that a word names in an image, of a medium and of a large one (COCO: 1024 and 9216 pixels)"""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not 0 < self.area_edges[0] < self.area_edges[1]:
            raise ValueError("area_edges must be two ascending numbers above 0: change them")
        if self.map == "token" and (self.prompts, self.classes) != ("bare", "own"):
            raise ValueError('map = "token" takes words from captions: set prompts = "bare" and classes = "own"')
        return self


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """The scores of every word's map; one row for each word that names something in an image, in their order.

    Arrays: `example`, `word` (index into the vocabulary), `pixels` and `share` of what it names, `area` (its share of
    the labelled pixels under the patches), the scores of the maps `centre` and `oracle` and, by path, `PATH/present`,
    `PATH/absent`, `PATH/function` (means over the absent and the function words; NaN without one), `PATH/tied`. One row
    for each image have `outside`, `without_caption` and `not_read` (words left out) and `PATH/own_rule`.
    """
    words = vocabulary(work.data, options.words)
    maps: WordsAlone | WordsInCaptions
    if options.map == "text":
        texts = class_words(options.classes, [word.name for word in words])
        maps = WordsAlone(encoder, words, texts, templates(options.prompts), options.function_words)
    else:
        maps = WordsInCaptions(encoder, work.data, words, options.function_words)
    for part, batches in work.views(encoder, frozenset({"patches"}), lambda part: [one.view for one in part.examples]):
        rows, remaining = _Rows(encoder, words), zip(part.index_N.tolist(), part.examples, strict=True)
        for images in recut(batches, CHUNK):
            if images.grid is None or images.area_N4 is None:
                raise RuntimeError("patches without a grid and its area")
            of_images = maps.of(images)
            areas_N4 = images.area_N4.cpu().numpy().astype(np.float64)
            for row, (index, example) in enumerate(islice(remaining, len(images))):
                named = NamedAreas(example, work.data.classes, words, options.regions)
                rows.begin()
                for area in named.areas(areas_N4[row], images.grid):
                    absent = named.absent(area.word, words, options.absent)
                    found = {path: of_images.maps(row, example, path, area.word, absent) for path in encoder.paths}
                    rows.add(index, area, found, images.grid)
        yield rows.block(part, own_rule=options.map == "text")


class _Rows:
    """Rows of one block."""

    def __init__(self, encoder: Encoder, words: Sequence[Word]) -> None:
        self._paths, self._token_path = tuple(encoder.paths), encoder.token_path
        self._place = {word: index for index, word in enumerate(words)}
        self._left_out: list[Counter[str]] = []
        self._columns: dict[str, list[object]] = {name: [] for name in (*ABOUT, "centre", "oracle")}
        self._columns |= {at_path(path, name): [] for path in self._paths for name in (*MAPS, "tied")}

    def begin(self) -> None:
        """The rows of another image follow."""
        self._left_out.append(Counter())

    def add(self, index: int, area: NamedArea, found: Mapping[str, Maps | str], grid: tuple[int, int]) -> None:
        """The row of a word, or the reason why it has none."""
        word, other = area.word_P, area.other_P
        reasons = [maps for maps in found.values() if isinstance(maps, str)]
        if not word.sum() > 0 or reasons:
            self._left_out[-1][reasons[0] if word.sum() > 0 else "outside"] += 1
            return
        about = {"example": index, "word": self._place[area.word], "pixels": area.pixels, "share": area.share}
        about["area"] = word.sum() / (word.sum() + other.sum())
        values: dict[str, object] = {**about, "centre": map_scores(centre_map(grid), word, other)}
        values["oracle"] = map_scores(
            np.divide(word, word + other, out=np.zeros_like(word), where=word > 0), word, other
        )
        for path, maps in found.items():
            assert isinstance(maps, Maps)
            values[at_path(path, "present")] = map_scores(maps.word_P, word, other)
            values[at_path(path, "tied")] = int((maps.word_P == maps.word_P.max()).sum() > 1)
            for name, others in (("absent", maps.absent_AP), ("function", maps.function_FP)):
                each = [map_scores(scores_P, word, other) for scores_P in others]
                values[at_path(path, name)] = np.mean(each, axis=0) if each else np.full(len(SCORES), np.nan)
        for name, value in values.items():
            self._columns[name].append(value)

    def block(self, part: Part, *, own_rule: bool) -> Block:
        """The block of a part's examples."""
        arrays = {}
        for name, values in self._columns.items():
            whole = name in ("example", "word") or name.endswith("tied")
            shape = (-1,) if whole or name in ABOUT else (-1, len(SCORES))
            arrays[name] = np.array(values, dtype=np.int64 if whole else np.float64).reshape(shape)
        for reason in LEFT_OUT:
            arrays[reason] = np.array([counts[reason] for counts in self._left_out], dtype=np.int64)
        for path in self._paths:
            arrays[at_path(path, "own_rule")] = np.full(len(part.examples), own_rule or path == self._token_path)
        return part.block(**arrays)


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score the maps of all words, by each patch path of the model.

    Every metric is the mean over the words of an image, then over the images with a word; clusters are images.
    `pointing`: a pixel of the best patch is the word's (expected credit under ties); `ap_over_area`: average precision
    of pixels, each with its patch's score, less the word's share of them; `auc`: a pixel of the word scores above
    another; `soft_iou` and `hard_iou` of weights between 0 and 1 (see `sparc_bench.metrics.grounding`). The same of
    absent words on the same pixels is the reference row `absent`, and `pointing_over_absent` and `auc_over_absent` are
    the differences; words of which none of their kind is absent are left out of these two. AUC has no value where the
    word fills all patches.

    Other rows: `constant` (an even map: the word's share of the pixels), `centre` (nearness to the centre),
    `function_words` (in place of the word), `oracle` (the word's share of each patch). Groups, of `auc_over_absent`:
    `part_of_speech`, `size` (of all that the word names in the image), `word`; `PATH/...` for further paths. The tie
    count is the number of words, over all paths, whose best patches tie.
    """
    words = vocabulary(data, options.words)
    example_R = predictions.joined("example")
    if not len(example_R):
        raise UserError(
            f"{data.dataset}:{data.split} has no word to score: take a split with regions, and captions for tokens."
        )
    word_R, count = predictions.joined("word"), len(data)
    noun_R = np.array([word.kind == NOUN for word in words])[word_R]
    sizes = predictions.joined("pixels" if options.area_unit == "pixels" else "share")
    size_R = np.searchsorted(np.array(options.area_edges), sizes, side="right")
    area_R = predictions.joined("area")
    metrics: dict[str, Statistic] = {}
    groups: dict[str, dict[str, Statistic]] = {}
    rows: dict[str, dict[str, float]] = {}
    examples: dict[str, ndarray] = {}
    notes = [*untrained_notes(predictions.paths)]
    ties = 0

    def add_row(row: str, path: str, scores: Mapping[str, ndarray]) -> None:
        found = {name: _mean(name, scores_R, example_R, count).value for name, scores_R in scores.items()}
        rows.setdefault(row, {}).update({at_path(path, name): value for name, value in found.items()})

    for path in predictions.paths:
        own, absent, function = (_scores(predictions, at_path(path, name), area_R) for name in MAPS)
        over = {f"{name}_over_absent": own[name] - absent[name] for name in DIFFERENCES}
        for name, scores_R in (own | over).items():
            metrics[at_path(path, name)] = _mean(name, scores_R, example_R, count)
        ties += int(predictions.joined(at_path(path, "tied")).sum())
        if not predictions.joined(at_path(path, "own_rule")).all():
            notes.append(f"{path}: plain cosine of patches and tokens, which no loss of this model contrasts.")
        headline_R = over["auc_over_absent"]
        prefix = path if groups else ""
        by = {"part_of_speech": [(NOUNS, noun_R), (ATTRIBUTES, ~noun_R)]}
        by["size"] = [(size, size_R == place) for place, size in enumerate(SIZES)]
        by["word"] = [(words[place].name, word_R == place) for place in np.unique(word_R).tolist()]
        for grouping, parts in by.items():
            of_parts = {
                name: _mean("auc_over_absent", headline_R[in_R], example_R[in_R], count)
                for name, in_R in parts
                if np.isfinite(headline_R[in_R]).any()
            }
            groups[at_path(prefix, grouping)] = dict(of_parts)
        examples.setdefault("correct", _per_image(own["pointing"], example_R, count))
        even = dict.fromkeys(own, area_R) | {"ap_over_area": np.zeros_like(area_R)}
        even["auc"] = np.where(np.isfinite(own["auc"]), 0.5, np.nan)
        none = {name: np.zeros_like(area_R) for name in over}
        add_row("constant", path, even | none)
        add_row("absent", path, absent | none)
        add_row("centre", path, _scores(predictions, "centre", area_R) | none)
        nulls = {f"{name}_over_absent": function[name] - absent[name] for name in DIFFERENCES}
        add_row("function_words", path, function | nulls)
        add_row("oracle", path, _scores(predictions, "oracle", area_R))
    left_out = {reason: int(predictions.joined(reason).sum()) for reason in LEFT_OUT}
    without = int(np.isnan(predictions.joined(at_path(next(iter(predictions.paths)), "absent"))[:, 0]).sum())
    return Outcome(
        metrics=metrics,
        groups=groups,
        examples=examples,
        ties=ties,
        counts={
            "images": len(np.unique(example_R)),
            "words": len(word_R),
            "different_words": len(np.unique(word_R)),
            "nouns": int(noun_R.sum()),
            "attributes": int((~noun_R).sum()),
            "without_absent_word": without,
            **left_out,
        },
        reference_rows={row: {name: v for name, v in of.items() if np.isfinite(v)} for row, of in rows.items()},
        notes=(*notes, *_left_out_notes(left_out, without)),
    )


def _scores(predictions: Predictions, name: str, area_R: Float[ndarray, "R"]) -> dict[str, Float[ndarray, "R"]]:
    """Metric -> its value for each word, average precision less the area."""
    columns = predictions.joined(name).T
    found = dict(zip(SCORES, columns, strict=True))
    found["ap"] = found["ap"] - area_R
    return {"ap_over_area" if metric == "ap" else metric: values_R for metric, values_R in found.items()}


def _per_image(values_R: Float[ndarray, "R"], example_R: Int[ndarray, "R"], images: int) -> Float[ndarray, "G"]:
    """Mean over each image's words with a value; NaN for an image without one."""
    known_R = np.isfinite(values_R)
    found = Mean.of(values_R[known_R], example_R[known_R], images)
    mean_G: ndarray = np.divide(found.sum_G, found.count_G, out=np.full(images, np.nan), where=found.count_G > 0)
    return mean_G


def _mean(metric: str, values_R: Float[ndarray, "R"], example_R: Int[ndarray, "R"], images: int) -> Mean:
    """Mean over the words of each image, then over the images; of a difference where the metric is one."""
    mean_G = _per_image(values_R, example_R, images)
    known_G = np.isfinite(mean_G)
    return (MeanDifference if "_over_" in metric else Mean)(np.where(known_G, mean_G, 0.0), known_G.astype(np.float64))


def _left_out_notes(left_out: Mapping[str, int], without: int) -> list[str]:
    why = {
        "outside": "words name nothing within what the model sees of the image, and are left out.",
        NO_CAPTION: "words stand in no caption of their image, and are left out.",
        NOT_READ: "words lie beyond the model's context or have no token, and are left out.",
    }
    notes = [f"{number} {why[reason]}" for reason, number in left_out.items() if number]
    if without:
        notes.append(f"{without} words have no absent word of their kind: the differences leave them out.")
    return notes
