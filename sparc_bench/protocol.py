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
        images = encoder.images(data.items, frozenset({"global"}))
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
        metrics: name -> statistic. A patch path's metrics are named `local/miou`, `global/miou`; so are groups that
            belong to the task itself.
        groups: name of a grouping (such as "class" or "kind") -> group -> statistic of the headline metric.
        examples: name -> array with one row per example of the data split, in its order; `correct` (credit of 0 to 1)
            is what `compare` looks for flips in, where the protocol has such a thing.
        rows: name -> array with one row per caption, detection or region (ranks, scores), in the protocol's order.
        ties: how many comparisons that decided a score were tied.
        counts: what was scored, for the record ({"images": 1000, "captions": 5000}).
        reference_rows: name of a reference row -> metric -> value, where the protocol itself knows it (best constant,
            oracle at the model's own grid, ceiling).
        notes: sentences that belong beside the number.
        scored: the examples of the data split that arrays and statistics are over, where the others are only learnt
            from (a probe's train images); None: all.
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
