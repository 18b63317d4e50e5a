"""Similarity matrices: scores of images and texts, from a retriever, a reranker or a classifier.

Shapes: N images of the file, M texts of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.files.annotations import some
from sparc_bench.outputs.outputs_file import OutputsFile

TITLE = "a similarity matrix"
FORMAT = (
    "an .npz or .safetensors file with `scores` (images by texts, higher is closer; or `image_to_text` and "
    "`text_to_image`, both images by texts), `image_ids` and `texts` (arrays of strings; in .safetensors JSON lists in "
    "the metadata), exactly as sparc-bench show TASK --out inputs.json writes them; for classification, class names "
    "suffice"
)
_MATRICES = ("scores", "image_to_text", "text_to_image")
_EXACT = 2**53
"""Integers up to which float64 tells all apart."""


@dataclass(frozen=True)
class Similarity:
    """Scores in the file's own precision (integers as float64); both matrices can be the same array.

    Attributes:
        where: path of the file, for messages.
        image_ids: ids of the rows.
        column_of: text -> its column (equal texts have equal columns).
        image_to_text_NM: scores that rank texts for an image.
        text_to_image_NM: scores that rank images for a text.
    """

    where: str
    image_ids: tuple[str, ...]
    column_of: dict[str, int]
    image_to_text_NM: Float[ndarray, "N M"]
    text_to_image_NM: Float[ndarray, "N M"]


def parse(file: OutputsFile) -> Similarity | None:
    """The similarity matrix, or None for a file of another kind.

    Raises:
        UserError: ids or texts are missing or of another number, scores are not finite, or equal texts have different
            scores.
    """
    if file.arrays is None or not any(name in file.arrays for name in _MATRICES):
        return None
    where, arrays = str(file.path), file.arrays
    named = [name for name in _MATRICES if name in arrays]
    if named not in (["scores"], ["image_to_text", "text_to_image"]):
        raise UserError(
            f"{where} holds {' and '.join(named)}: give either `scores`, or `image_to_text` and `text_to_image`."
        )
    image_ids, texts = _strings(arrays, "image_ids", where), _strings(arrays, "texts", where)
    matrices = [_scores(arrays[name], name, (len(image_ids), len(texts)), where) for name in named]
    column_of: dict[str, int] = {}
    for column, text in enumerate(texts):
        first = column_of.setdefault(text, column)
        if first != column and any((matrix[:, first] != matrix[:, column]).any() for matrix in matrices):
            raise UserError(
                f"{where} has two columns with different scores for the text '{text}': give each text one column."
            )
    return Similarity(where, tuple(image_ids), column_of, matrices[0], matrices[-1])


def _strings(arrays: dict[str, ndarray], name: str, where: str) -> Sequence[str]:
    if name not in arrays:
        raise UserError(f"{where} has no `{name}`: add them, as an array of strings in the matrix's order.")
    values = arrays[name]
    if values.ndim != 1 or values.dtype.kind not in "UTiu":
        raise UserError(
            f"`{name}` of {where} is a {values.dtype} array with {values.ndim} axes: give one axis of strings."
        )
    return [str(value) for value in values.tolist()]


def _scores(matrix: ndarray, name: str, shape: tuple[int, int], where: str) -> Float[ndarray, "N M"]:
    if matrix.shape != shape:
        found = " x ".join(map(str, matrix.shape))
        raise UserError(
            f"`{name}` of {where} is {found}, with {shape[0]} image_ids and {shape[1]} texts: give a row for each "
            "image and a column for each text."
        )
    if matrix.dtype.kind not in "fiu":
        raise UserError(f"`{name}` of {where} is an array of {matrix.dtype}: give numbers.")
    scores_NM = _whole_numbers(matrix, name, where) if matrix.dtype.kind in "iu" else _floats(matrix)
    bad = np.argwhere(~np.isfinite(scores_NM))
    if len(bad):
        row, column = bad[0]
        raise UserError(
            f"`{name}` of {where} holds {len(bad)} numbers that are not finite in {scores_NM.dtype}, such as "
            f"{matrix[row, column]} in row {row}, column {column}: give every pair a finite score (one that was not "
            "compared a lower one than all others)."
        )
    return scores_NM


def _floats(matrix: ndarray) -> Float[ndarray, "N M"]:
    with np.errstate(over="ignore"):  # of long doubles
        return np.asarray(matrix, dtype=np.float32 if matrix.dtype.itemsize <= 4 else np.float64)


def _whole_numbers(matrix: ndarray, name: str, where: str) -> Float[ndarray, "N M"]:
    """Integers as float64, which holds them exactly; large ones are counted from the lowest, which changes no order."""
    if not matrix.size:
        return matrix.astype(np.float64)
    low, high = int(matrix.min()), int(matrix.max())
    if max(-low, high) <= _EXACT:
        return matrix.astype(np.float64)
    if high - low > _EXACT:
        raise UserError(
            f"`{name}` of {where} holds integers from {low} to {high}, more than float64 tells apart: give scores of a "
            "narrower range, such as ranks."
        )
    counted_NM: Float[ndarray, "N M"] = (matrix - matrix.min()).astype(np.float64)
    return counted_NM


def columns(similarity: Similarity, texts: Sequence[str]) -> list[int]:
    """Column of every text; raises UserError where a text has none."""
    missing = [text for text in texts if text not in similarity.column_of]
    if missing:
        raise UserError(
            f"{similarity.where} lacks {len(missing)} of {len(texts)} texts of the task, such as '{some(missing, 1)}': "
            "give every text a column, spelled exactly as in the data set."
        )
    return [similarity.column_of[text] for text in texts]
