"""Plug-in protocol: top-1 of the three classes by every patch path, ties at their expected credit."""

import numpy as np

from sparc_bench.cards.card import Strict
from sparc_bench.metrics.statistic import Mean
from sparc_bench.protocol import Outcome

VERSION = 1
NEEDS = frozenset({"image", "text", "patches"})
DATA = frozenset({"labels"})


class Options(Strict):
    prompts: str
    classes: str


def run(encoder, data, options):
    texts = encoder.texts(data.classes, frozenset({"global"}))
    images = encoder.images(data.views, frozenset({"patches"}))
    label_N = np.array([example.label for example in data])
    metrics, groups, correct_N = {}, {}, None
    for path in encoder.paths:
        scores_NC = encoder.dense_scores(images, texts, path).mean((2, 3)).numpy()
        best_NC = scores_NC >= scores_NC.max(axis=1, keepdims=True) - 1e-6
        credit_N = best_NC[np.arange(len(data)), label_N] / best_NC.sum(axis=1)
        metrics[f"{path}/top1"] = Mean.of(credit_N)
        if correct_N is None:
            correct_N = credit_N
            groups["class"] = {
                name: Mean(credit_N * (label_N == c), (label_N == c).astype(float))
                for c, name in enumerate(data.classes)
            }
    return Outcome(
        metrics=metrics,
        groups=groups,
        examples={"correct": correct_N},
        rows={"noise": np.random.default_rng(0).random(len(data))},
        counts={"images": len(data)},
        reference_rows={"oracle": {"top1": 1.0}},
    )
