"""The truth of many captions in many scenes at once; equals `logical_forms.holds` on every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from sparc_bench.dataset import Example
from sparc_bench.facets import Facet
from sparc_bench.scenes.logical_forms import Code, Form
from sparc_bench.scenes.scene import Scene
from sparc_bench.scenes.world import MAX_OBJECTS

_CHUNK = 1024
"""Number of forms decided at once, for a bounded memory of about ten megabytes per thousand scenes."""

_SETS = range(1 << MAX_OBJECTS)
_SIZE = np.array([members.bit_count() for members in _SETS], dtype=np.uint8)
"""Number of members of every set of objects, held as bits."""
_PAIRS = np.array(
    [[sum((a >> i & 1) * b << (MAX_OBJECTS * i) for i in range(MAX_OBJECTS)) for b in _SETS] for a in _SETS],
    dtype=np.uint16,
)
"""All ordered pairs (member of one set, member of another) as bits, for every two sets (see `Scene.code`)."""


@dataclass(frozen=True)
class SceneForms(Facet):
    """The facet of a rendered image: its scene, and the logical forms of the captions.

    Attributes:
        scene: scene of the image.
        forms: logical forms of the captions, in order.
    """

    NAME: ClassVar[str] = "scene"

    scene: Scene
    forms: tuple[Form, ...]


def truth_matrix(forms: Sequence[Form], scenes: Sequence[Scene]) -> Bool[ndarray, "N M"]:
    """Whether form m is true of scene n: N scenes in rows, M forms in columns.

    The objects that fit a description are a set of at most four, held as the bits of one byte; the size of a set and
    the pairs of two sets are table look-ups. Equal forms are decided once.
    """
    if not forms or not scenes:
        return np.zeros((len(scenes), len(forms)), dtype=bool)
    facts_NF = np.array([scene.code for scene in scenes], dtype=np.uint32)
    codes_NO, pairs_RN = facts_NF[:, :MAX_OBJECTS], facts_NF[:, MAX_OBJECTS:].T.astype(np.uint16)
    column: dict[Code, int] = {}
    column_M = np.array([column.setdefault(form.code, len(column)) for form in forms])
    distinct = list(column)
    parts = [_decide(distinct[at : at + _CHUNK], codes_NO, pairs_RN) for at in range(0, len(distinct), _CHUNK)]
    truth_UN = np.concatenate(parts)
    return np.ascontiguousarray(truth_UN[column_M].T)


def _decide(forms: Sequence[Code], codes_NO: ndarray, pairs_RN: ndarray) -> Bool[ndarray, "U N"]:
    """Truth of distinct forms (U) in N scenes."""
    row: dict[int, int] = {}

    def row_of(description: int) -> int:
        return row.setdefault(description, len(row))

    counts = [(form, row_of(what), least, most) for form, code in enumerate(forms) for what, least, most in code[0]]
    relations = [
        (form, row_of(subject), relation, row_of(other))
        for form, code in enumerate(forms)
        for subject, relation, other in code[1]
    ]
    wanted_D = np.array(list(row), dtype=np.uint32)
    fitting_DN = np.zeros((len(wanted_D), len(codes_NO)), dtype=np.uint8)
    for at in range(MAX_OBJECTS):
        fits_DN = (codes_NO[:, at][None, :] & wanted_D[:, None]) == wanted_D[:, None]
        fitting_DN |= fits_DN.astype(np.uint8) << np.uint8(at)
    truth_UN = np.ones((len(forms), len(codes_NO)), dtype=bool)
    if counts:
        form_A, what_A, least_A, most_A = np.array(counts).T
        number_AN = _SIZE[fitting_DN][what_A]
        true_AN = (number_AN >= least_A.astype(np.uint8)[:, None]) & (number_AN <= most_A.astype(np.uint8)[:, None])
        _and_into(truth_UN, form_A, true_AN)
    if relations:
        form_A, subject_A, relation_A, other_A = np.array(relations).T
        spanned_AN = _PAIRS[fitting_DN[subject_A], fitting_DN[other_A]]
        _and_into(truth_UN, form_A, (spanned_AN & pairs_RN[relation_A]) != 0)
    return truth_UN


def _and_into(truth_UN: ndarray, form_A: ndarray, true_AN: ndarray) -> None:
    """Conjoin claims to their forms, in place; `form_A` (the form of each claim) is sorted."""
    first_A = np.flatnonzero(np.diff(form_A, prepend=-1))
    truth_UN[form_A[first_A]] &= np.logical_and.reduceat(true_AN, first_A, axis=0)


def caption_truth(examples: Sequence[Example]) -> Bool[ndarray, "N M"]:
    """Truth N x M of all captions of the examples (in order) in the image of every example.

    For `Examples.caption_truth`; examples may be of any split and kind, and captions may be left out together with
    their `SceneForms.forms`.
    """
    facets = [example.facet(SceneForms) for example in examples]
    for example, facet in zip(examples, facets, strict=True):
        if len(facet.forms) != len(example.captions):
            raise RuntimeError(f"{example.id} does not hold one logical form per caption")
    return truth_matrix([form for facet in facets for form in facet.forms], [facet.scene for facet in facets])
