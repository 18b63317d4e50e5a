"""The reference values of a card: what a correct set-up gives on the probe, for everybody else to compare with.

Shapes: N images, M texts.
"""

from __future__ import annotations

import textwrap
from itertools import combinations

import torch.nn.functional as F
from torch import Tensor

from sparc_bench.cards.model_card import Reference
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.subject import Subject

DIGITS = 5
TOLERANCE = 0.002
"""Largest difference of two scores that a published table allows: other machines, library versions and threads."""

_AGREES = 0.03
"""What differs by at most this share of the largest difference is right, and something else is wrong."""

_EXPECTED = "within the tolerance of the card's [reference]"

_POINTS_TO = {
    "square": "the image is enlarged or normalised otherwise: compare interpolation, mean and std",
    "wide": "wide images are resized otherwise: compare crop, squash and padding",
    "tall": "tall images are resized otherwise: compare crop, squash and padding",
    "tiny": "small images are enlarged otherwise: compare the interpolation",
    "mixed case": "upper case is treated otherwise: compare the text cleaning",
    "punctuation": "punctuation is treated otherwise: compare the text cleaning",
    "long": "long texts are cut otherwise: compare the context length, and that the end token is kept",
}
"""Image or text of the probe -> what it means where this one alone differs."""

_IMAGE_SIDE = "compare the weights, the activation (QuickGELU or GELU), resize, interpolation, mean and std"
_TEXT_SIDE = "compare the weights, the activation (QuickGELU or GELU), text cleaning, padding and context length"


def measure(subject: Subject) -> Reference:
    """The values of this model as it is set up."""
    encoder = subject.encoder
    images = subject.images[: len(probe.REFERENCE_IMAGES)]
    texts = encoder.texts(tuple(probe.REFERENCE_TEXTS.values()), subject.text_need)
    return Reference(
        probe=probe.VERSION,
        image_image=_pairs(images.global_ND),
        text_text=_pairs(texts.global_MD),
        image_text=_rounded(encoder.similarity(images, texts)[0].flatten()),
        tolerance=TOLERANCE,
        source="",
    )


def _pairs(vectors_ND: Tensor | None) -> tuple[float, ...]:
    """Cosines of all pairs of rows; none where a model has no such vectors."""
    if vectors_ND is None:
        return ()
    unit_ND = F.normalize(vectors_ND.double(), dim=-1)
    first, second = zip(*combinations(range(len(unit_ND)), 2), strict=True)
    return _rounded((unit_ND[list(first)] * unit_ND[list(second)]).sum(-1))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), DIGITS) for value in values)


def reference(subject: Subject) -> Finding:
    """The values measured here against those of the card."""
    card = subject.encoder.card
    stored = card.reference
    if stored is None:
        return left_out("the card has none")
    if card.family == "own" and card.weights is None:
        return left_out("they belong to the kept weights, and this is another run")
    if stored.probe != probe.VERSION:
        advice = (
            f"The card's [reference] is of probe {stored.probe}, and this is probe {probe.VERSION}: measure it anew."
        )
        return Finding("note", f"of probe {stored.probe}", _EXPECTED, advice)
    found = measure(subject)
    off = {}
    for name in ("image_image", "text_text", "image_text"):
        here, there = getattr(found, name), getattr(stored, name)
        if len(here) != len(there):
            advice = (
                f"The card's [reference] has {len(there)} numbers in {name} instead of {len(here)}: measure it anew."
            )
            return Finding("fail", f"{len(there)} numbers in {name}", _EXPECTED, advice)
        off[name] = max((abs(a - b) for a, b in zip(here, there, strict=True)), default=0.0)
    worst, allowed = max(off.values()), max(stored.tolerance, subject.tolerance)
    measured = f"at most {worst:.4f} off"
    if worst <= allowed:
        return Finding("ok", measured, _EXPECTED)
    return Finding("fail", measured, _EXPECTED, _diagnosis(found, stored, off))


def _diagnosis(found: Reference, stored: Reference, off: dict[str, float]) -> str:
    """Which side is wrong, and if one image or text alone is, what that points to."""
    start = f"The scores are not those that {stored.source or 'the card'} measured; "
    small = _AGREES * max(off.values())
    text_agrees = off["text_text"] <= small
    image_agrees = off["image_image"] <= small if stored.image_image else not text_agrees
    if image_agrees and text_agrees:
        return f"{start}images and texts each agree among themselves: compare the projections into the joint space."
    if not image_agrees and not text_agrees:
        return f"{start}images and texts both differ: {_IMAGE_SIDE}."
    side = "text" if image_agrees else "image"
    names = [item.id for item in probe.REFERENCE_IMAGES] if side == "image" else list(probe.REFERENCE_TEXTS)
    here, there = getattr(found, f"{side}_{side}"), getattr(stored, f"{side}_{side}")
    wrong = [pair for pair, a, b in zip(combinations(names, 2), here, there, strict=False) if abs(a - b) > small]
    alone = [name for name in names if all(name in pair for pair in wrong)]
    if len(alone) == 1 and len(wrong) > 1 and alone[0] in _POINTS_TO:
        return f"{start}only the {alone[0]} {side} differs: {_POINTS_TO[alone[0]]}."
    return f"{start}only the {side} side differs: {_IMAGE_SIDE if side == 'image' else _TEXT_SIDE}."


def as_toml(measured: Reference, source: str) -> str:
    """The table for a card, ready to paste."""
    lines = ["[reference]", f"probe = {measured.probe}"]
    for name in ("image_image", "text_text", "image_text"):
        values = getattr(measured, name)
        if values:
            numbers = ", ".join(f"{value:.{DIGITS}f}" for value in values)
            lines += [f"{name} = [", *textwrap.wrap(numbers, 100, initial_indent="  ", subsequent_indent="  "), "]"]
    return "\n".join([*lines, f"tolerance = {measured.tolerance}", f'source = "{source}"'])


def publishable(subject: Subject) -> bool:
    """Whether values of this model are worth storing: it computes both sides in float32, and its card has none."""
    encoder = subject.encoder
    both = {"image", "text"} <= subject.gives and not subject.stored
    return both and encoder.precision == "float32" and encoder.card.reference is None
