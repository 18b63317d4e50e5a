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


def predict(encoder, work, options):
    texts = encoder.texts(work.data.classes, frozenset({"global"}))
    for part, images in work.images(encoder, frozenset({"patches"})):
        label_N = np.array([example.label for example in part.examples])
        found = {}
        for path in encoder.paths:
            scores_NC = encoder.dense_scores(images, texts, path).mean((2, 3)).numpy()
            best_NC = scores_NC >= scores_NC.max(axis=1, keepdims=True) - 1e-6
            found[path] = best_NC[np.arange(len(label_N)), label_N] / best_NC.sum(axis=1)
        yield part.block(**found)


def score(predictions, data, options):
    label_N = np.array([example.label for example in data])
    credit = {path: predictions.by_example(path, len(data)) for path in predictions.paths}
    first_N = next(iter(credit.values()))
    groups = {name: Mean(first_N * (label_N == c), (label_N == c).astype(float)) for c, name in enumerate(data.classes)}
    return Outcome(
        metrics={f"{path}/top1": Mean.of(credit_N) for path, credit_N in credit.items()},
        groups={"class": groups},
        examples={"correct": first_N},
        rows={"noise": np.random.default_rng(0).random(len(data))},
        counts={"images": len(data)},
        reference_rows={"oracle": {"top1": 1.0}},
    )
