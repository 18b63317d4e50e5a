"""The protocol seam: a scoring rule, in two steps: predictions of a model, and statistics of the predictions.

A new protocol is one Python file: its version, what it needs of a model and of the data, its options (without defaults:
the task card states every one), `predict`, which looks at the images block by block and yields arrays that suffice to
score without the model, and `score`, which returns an `Outcome`. A complete one:

    import numpy as np

    from sparc_bench.cards.card import Strict
    from sparc_bench.metrics.statistic import Mean
    from sparc_bench.protocol import Outcome

    VERSION = 1
    NEEDS = frozenset({"image", "text"})
    DATA = frozenset({"labels"})


    class Options(Strict):
        template: str


    def predict(encoder, work, options):
        prompts = [options.template.replace("{}", name) for name in work.data.classes]
        texts = encoder.texts(prompts, frozenset({"global"}))
        for part, images in work.images(encoder, frozenset({"global"})):
            scores_NC = encoder.similarity(images, texts)[0].numpy()
            best_NC = scores_NC == scores_NC.max(axis=1, keepdims=True)
            label_N = np.array([example.label for example in part.examples])
            yield part.block(credit=best_NC[np.arange(len(label_N)), label_N] / best_NC.sum(axis=1))  # ties share


    def score(predictions, data, options):
        credit_N = predictions.by_example("credit", len(data))
        return Outcome({"top1": Mean.of(credit_N)}, examples={"correct": credit_N}, counts={"images": len(data)})

Blocks are written to disk as they come: an evaluation that was killed goes on after the last one, and several processes
share them. A protocol that has to see all images at once (ranks of images, a fitted probe) has no `predict` but
`kept(encoder)`, the kinds of image features that are kept on disk in place of blocks; its `score(encoder, data,
options)` is given an encoder that reads them from there.

Named by `--plugin plain_top1.py`, it is the `protocol = "plain_top1"` of a task card. A change that moves a number
raises `VERSION`. A protocol that ships with the package is the same file in `sparc_bench/protocols/`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures
from sparc_bench.images.view import View
from sparc_bench.metrics.statistic import Statistic

AT_ONCE = 256
"""Images (or groups of images that belong together) in a block, where nothing else is said."""


@dataclass(frozen=True)
class Block:
    """Predictions about some examples, enough to score them without the model.

    Attributes:
        index_N: the examples, as indices into the data split.
        arrays: name -> array. Arrays with one row for each example, in the order of `index_N`, or for each caption,
            region or detection, with arrays beside them that say of which example.
    """

    index_N: Int[ndarray, "N"]
    arrays: Mapping[str, ndarray]


@dataclass(frozen=True)
class Part:
    """The examples of one block.

    Attributes:
        index_N: their indices in the data split.
        examples: in that order.
    """

    index_N: Int[ndarray, "N"]
    examples: tuple[Example, ...]

    def block(self, **arrays: ndarray) -> Block:
        """The block of these examples."""
        return Block(self.index_N, arrays)


@dataclass(frozen=True)
class Work:
    """The examples that one process predicts, part by part; iteration reads a part's examples when it comes to it.

    Attributes:
        data: the whole data split.
        parts: indices of the examples of each block.
    """

    data: Examples
    parts: Sequence[Int[ndarray, "N"]]

    @classmethod
    def whole(cls, data: Examples, units: Sequence[Int[ndarray, "n"]] | None = None, at_once: int = AT_ONCE) -> Work:
        """All examples, `at_once` of them in a part.

        Args:
            data: the data split.
            units: the examples that have to be predicted together, where they are not alone; `at_once` counts these.
            at_once: how many.
        """
        if units is None:
            starts = range(0, len(data), at_once)
            return cls(data, [np.arange(start, min(start + at_once, len(data))) for start in starts])
        starts = range(0, len(units), at_once)
        return cls(data, [np.concatenate(units[start : start + at_once]) for start in starts])

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Part]:
        for index_N in self.parts:
            yield Part(index_N, tuple(self.data[index] for index in index_N.tolist()))

    def images(self, encoder: Encoder, need: frozenset[str]) -> Iterator[tuple[Part, ImageFeatures]]:
        """Each part with the features of its examples' images."""
        for part, batches in self.views(encoder, need, lambda part: [example.view for example in part.examples]):
            yield part, ImageFeatures.concat(list(batches))

    def views(
        self, encoder: Encoder, need: frozenset[str], views: Callable[[Part], Sequence[View]]
    ) -> Iterator[tuple[Part, Iterator[ImageFeatures]]]:
        """Each part with the features of its views, batch by batch (none where it has no view).

        One stream runs through all parts: the next ones are decoded while one is scored.
        """
        waiting: deque[tuple[Part, int]] = deque()

        def groups() -> Iterator[Sequence[View]]:
            for part in self:
                group = views(part)
                waiting.append((part, len(group)))
                yield group

        stream = encoder.stream(groups(), need)
        early: list[ImageFeatures] = []

        def batches(left: int) -> Iterator[ImageFeatures]:
            while left > 0:
                features = early.pop() if early else next(stream)
                left -= len(features)
                yield features

        while True:
            if not waiting:
                early += [features for features in (next(stream, None),) if features is not None]
            if not waiting:
                return
            part, number = waiting.popleft()
            of_part = batches(number)
            yield part, of_part
            deque(of_part, maxlen=0)  # whatever the protocol did not look at


@dataclass(frozen=True)
class Predictions:
    """The blocks of all examples of a data split, in the order of the parts; read when they are asked for.

    Attributes:
        blocks: all of them.
        paths: patch path -> whether a loss trained it; the empty path, trained, for the outputs of another system.
        notes: sentences for the record on how the predictions were read.
    """

    blocks: Sequence[Block]
    paths: Mapping[str, bool] = field(default_factory=lambda: {"": True})
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def joined(self, name: str) -> ndarray:
        """The rows of all blocks, one block after the other."""
        return np.concatenate([block.arrays[name] for block in self])

    def by_example(self, name: str, examples: int) -> ndarray:
        """The rows of an array with one row for each example, in the order of the data split's `examples` examples."""
        found = np.empty(0)
        for block in self:
            rows = block.arrays[name]
            if not found.size:
                found = np.zeros((examples, *rows.shape[1:]), dtype=rows.dtype)
            found[block.index_N] = rows
        return found


@dataclass(frozen=True)
class Outcome:
    """The result of one protocol on one encoder.

    Attributes:
        metrics: name -> statistic. Metrics of a patch path are named `local/miou`, `global/miou`.
        groups: name of a grouping (such as "class" or "kind") -> group -> statistic of the headline metric.
        examples: name -> array with one row per example of the data split, in its order; `compare` finds flips in
            `correct` (credit, 0 to 1), if there is one.
        rows: name -> array with one row per caption, detection or region (ranks, scores), in the protocol's order.
        ties: number of tied comparisons that decided a score.
        counts: numbers of scored images, captions ... for the record ({"images": 1000, "captions": 5000}).
        reference_rows: rows that the protocol itself computes (best constant, oracle at the model's own grid,
            ceiling): name of the row -> metric -> value.
        notes: sentences for the record on how to read the numbers.
        scored: indices of the scored examples, for arrays and statistics over a part of the data split (a linear
            probe's test images); None: all.
    """

    metrics: Mapping[str, Statistic]
    groups: Mapping[str, Mapping[str, Statistic]] = field(default_factory=dict)
    examples: Mapping[str, ndarray] = field(default_factory=dict)
    rows: Mapping[str, ndarray] = field(default_factory=dict)
    ties: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    reference_rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scored: Int[ndarray, "T"] | None = None
