"""The [probe] values of a card: cosines and scores of a correct set-up on the probe, for others to compare with.

Shapes: N images, M texts, D joint width.
"""

from __future__ import annotations

import textwrap
from itertools import combinations

import torch.nn.functional as F
from torch import Tensor

from sparc_bench.cards.model_card import ProbeValues
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.probed_model import ProbedModel

DIGITS = 5
"""Decimals of a stored value."""

TOLERANCE = 0.002
"""Largest allowed difference of two scores in a new table; covers other machines, library versions and threads."""

_AGREES = 0.03
"""Share of the largest difference up to which values count as agreeing in the diagnosis."""

_EXPECTED = "within the tolerance of the card's [probe]"

_POINTS_TO = {
    "square": "the image is enlarged or normalised otherwise: compare interpolation, mean and std",
    "wide": "wide images are resized otherwise: compare crop, squash and padding",
    "tall": "tall images are resized otherwise: compare crop, squash and padding",
    "tiny": "small images are enlarged otherwise: compare the interpolation",
    "mixed case": "upper case is treated otherwise: compare the text cleaning",
    "punctuation": "punctuation is treated otherwise: compare the text cleaning",
    "long": "long texts are cut otherwise: compare the context length, and that the end token is kept",
}
"""Image or text of the probe -> likely mistake where this one alone differs."""

_IMAGE_SIDE = "compare the weights, the activation (QuickGELU or GELU), resize, interpolation, mean and std"
_TEXT_SIDE = "compare the weights, the activation (QuickGELU or GELU), text cleaning, padding and context length"


def measure(model: ProbedModel) -> ProbeValues:
    """The probe values of a model in its present set-up."""
    encoder = model.encoder
    images = model.images[: len(probe.COMPARED_IMAGES)]
    texts = encoder.texts(tuple(probe.COMPARED_TEXTS.values()), model.text_need)
    return ProbeValues(
        version=probe.VERSION,
        image_image=_pairs(images.global_ND),
        text_text=_pairs(texts.global_MD),
        image_text=_rounded(encoder.similarity(images, texts)[0].flatten()),
        tolerance=TOLERANCE,
        source="",
    )


def _pairs(vectors_ND: Tensor | None) -> tuple[float, ...]:
    """Cosines of all pairs of rows; empty where there are no vectors."""
    if vectors_ND is None:
        return ()
    unit_ND = F.normalize(vectors_ND.double(), dim=-1)
    first, second = zip(*combinations(range(len(unit_ND)), 2), strict=True)
    return _rounded((unit_ND[list(first)] * unit_ND[list(second)]).sum(-1))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), DIGITS) for value in values)


def compare_with_card(model: ProbedModel) -> Finding:
    """Finding on the difference between the values measured here and those of the card."""
    card = model.encoder.card
    stored = card.probe
    if stored is None:
        return left_out("the card has none")
    if card.family == "own" and card.weights is None:
        return left_out("they belong to the kept weights, and this is another run")
    if stored.version != probe.VERSION:
        advice = (
            f"The card's [probe] values are of version {stored.version} of the probe and this is version "
            f"{probe.VERSION}: replace them by the table that sparc-bench verify prints once they are taken out."
        )
        return Finding("note", f"version {stored.version} of the probe", _EXPECTED, advice)
    found = measure(model)
    off = {}
    for name in ("image_image", "text_text", "image_text"):
        here, there = getattr(found, name), getattr(stored, name)
        if len(here) != len(there):
            advice = (
                f"The card's [probe] has {len(there)} numbers in {name} instead of {len(here)}: replace it by the "
                "table that sparc-bench verify prints once it is taken out."
            )
            return Finding("fail", f"{len(there)} numbers in {name}", _EXPECTED, advice)
        off[name] = max((abs(a - b) for a, b in zip(here, there, strict=True)), default=0.0)
    worst, allowed = max(off.values()), max(stored.tolerance, model.tolerance)
    measured = f"at most {worst:.4f} off"
    if worst <= allowed:
        return Finding("ok", measured, _EXPECTED)
    return Finding("fail", measured, _EXPECTED, _diagnosis(found, stored, off))


def _diagnosis(found: ProbeValues, stored: ProbeValues, off: dict[str, float]) -> str:
    """Advice that names the side that differs, and the likely mistake where one image or text alone differs."""
    start = f"The scores are not those that {stored.source or 'the card'} measured; "
    small = _AGREES * max(off.values())
    text_agrees = off["text_text"] <= small
    image_agrees = off["image_image"] <= small if stored.image_image else not text_agrees
    if image_agrees and text_agrees:
        return f"{start}images and texts each agree among themselves: compare the projections into the joint space."
    if not image_agrees and not text_agrees:
        return f"{start}images and texts both differ: {_IMAGE_SIDE}."
    side = "text" if image_agrees else "image"
    names = [view.id for view in probe.COMPARED_IMAGES] if side == "image" else list(probe.COMPARED_TEXTS)
    here, there = getattr(found, f"{side}_{side}"), getattr(stored, f"{side}_{side}")
    wrong = [pair for pair, a, b in zip(combinations(names, 2), here, there, strict=False) if abs(a - b) > small]
    alone = [name for name in names if all(name in pair for pair in wrong)]
    if len(alone) == 1 and len(wrong) > 1 and alone[0] in _POINTS_TO:
        return f"{start}only the {alone[0]} {side} differs: {_POINTS_TO[alone[0]]}."
    return f"{start}only the {side} side differs: {_IMAGE_SIDE if side == 'image' else _TEXT_SIDE}."


def as_toml(measured: ProbeValues, source: str) -> str:
    """The [probe] table of a card, ready to paste."""
    lines = ["[probe]", f"version = {measured.version}"]
    for name in ("image_image", "text_text", "image_text"):
        values = getattr(measured, name)
        if values:
            numbers = ", ".join(f"{value:.{DIGITS}f}" for value in values)
            lines += [f"{name} = [", *textwrap.wrap(numbers, 100, initial_indent="  ", subsequent_indent="  "), "]"]
    return "\n".join([*lines, f"tolerance = {measured.tolerance}", f'source = "{source}"'])


def publishable(model: ProbedModel) -> bool:
    """Whether a [probe] table is offered: both towers compute in float32 and the card has no table yet."""
    encoder = model.encoder
    both = {"image", "text"} <= model.gives and not model.stored
    return both and encoder.precision == "float32" and encoder.card.probe is None
