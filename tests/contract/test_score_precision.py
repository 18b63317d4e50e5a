"""Scores in a file are compared in its own precision by every protocol: rounding to float32 would make ties of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_from
from sparc_bench.cards import discovery
from sparc_bench.encoder import Encoder
from sparc_bench.outputs import similarity
from sparc_bench.outputs.outputs_file import OutputsFile
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import classification
from tests.contract import test_image_protocols as whole
from tests.toys.encoders import LookupEncoder

WITH_MATRICES = [
    name for name in whole.CASES if "similarity" in getattr(discovery.load("protocols", name), "OUTPUTS", {})
]
PRECISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saturated probabilities": lambda s: 1 - 1e-9 * (1 - s),
    "sums of log-likelihoods": lambda s: s - 1e9,
    "int32": lambda s: (2**30 + s).astype(np.int32),
    "int64 above 2^53": lambda s: 2**60 + s.astype(np.int64),
    "uint64 above 2^63": lambda s: np.uint64(2**63) + s.astype(np.uint64),
}


def of_matrix(name: str, scale: Callable[[np.ndarray], np.ndarray]) -> Outcome:
    """The outcome of a matrix that knows the answers."""
    case = whole.CASES[name]
    data = case.data(12)
    key = case.key(data)

    def of_encoder(encoder: Encoder) -> Outcome:
        return case.run(encoder, data)

    asked: list[str] = []
    watched = LookupEncoder(key.image_vector, lambda text: (asked.append(text), key.text_vector(text))[1])
    of_encoder(watched)
    texts = list(dict.fromkeys(asked))
    images = watched.images(list({item.id: item for item in data.views}.values()), frozenset({"global"}))
    scores = watched.similarity(images, watched.texts(texts, frozenset({"global"})))[0].double().numpy()
    arrays = {"scores": scale(scores), "image_ids": np.array(images.ids), "texts": np.array(texts)}
    matrix = similarity.parse(OutputsFile(Path("matrix.npz"), "", arrays=arrays))
    if name == "classification":
        options = classification.Options(prompts="bare", classes="own", top_k=(1, 5), ties="expected")
        return outcome_from(classification, classification.by_similarity(matrix, data, options), data, options)
    return of_encoder(ScoresEncoder(matrix, data.views))


@pytest.mark.parametrize("scale", PRECISE)
@pytest.mark.parametrize("name", WITH_MATRICES)
def test_close_scores_do_not_tie(name: str, scale: str):
    plain, precise = of_matrix(name, lambda s: s), of_matrix(name, PRECISE[scale])
    assert whole.values(precise) == pytest.approx(whole.values(plain), nan_ok=True)
    assert precise.ties == plain.ties


def test_every_protocol_that_takes_a_matrix_is_here():
    modules = {name: discovery.load("protocols", name) for name in discovery.names("protocols")}
    takes = {name for name, module in modules.items() if "similarity" in getattr(module, "OUTPUTS", {})}
    assert set(WITH_MATRICES) == takes
