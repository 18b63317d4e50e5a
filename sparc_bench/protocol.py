"""The protocol seam: a scoring rule, from an encoder and the examples of a task to statistics with their uncertainty.

A new protocol is one Python file: its version, what it needs of a model and of the data, its options (without defaults:
the task card states every one) and `run(encoder, data, options)`, which returns an `Outcome`. A complete one:

    import numpy as np

    from sparc_bench.cards.card import Strict
    from sparc_bench.metrics.statistic import Mean
    from sparc_bench.protocol import Outcome

    VERSION = 1
    NEEDS = frozenset({"image", "text"})
    DATA = frozenset({"labels"})


    class Options(Strict):
        template: str


    def run(encoder, data, options):
        prompts = [options.template.replace("{}", name) for name in data.classes]
        texts = encoder.texts(prompts, frozenset({"global"}))
        images = encoder.images(data.views, frozenset({"global"}))
        scores_NC = encoder.similarity(images, texts)[0].numpy()
        best_NC = scores_NC == scores_NC.max(axis=1, keepdims=True)
        label_N = np.array([example.label for example in data])
        credit_N = best_NC[np.arange(len(data)), label_N] / best_NC.sum(axis=1)  # a tie: its expected credit
        return Outcome({"top1": Mean.of(credit_N)}, examples={"correct": credit_N}, counts={"images": len(data)})

Named by `--plugin plain_top1.py`, it is the `protocol = "plain_top1"` of a task card. A change that moves a number
raises `VERSION`. A protocol that ships with the package is the same file in `sparc_bench/protocols/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Int
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic


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
