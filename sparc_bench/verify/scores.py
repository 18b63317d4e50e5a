"""Checks of the scores: logit scale and ties.

Shapes: N images, M texts.
"""

from __future__ import annotations

import math

from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.probed_model import ProbedModel
from sparc_bench.verify.vectors import same_as_another

_FEW, _MANY = 1e-3, 1e-2
"""Shares of tied neighbouring scores from which on the finding is a note or a warning."""


def logit_scale(model: ProbedModel) -> Finding:
    """Finding on the factor that a model multiplies its cosines by."""
    value = model.encoder.logit_scale
    expected = "the inverse temperature, about 1 to 150"
    if value is None:
        return left_out("the encoder does not say (no task needs it: cosines rank alike)")
    scale = float(value)
    if math.isfinite(scale) and 50 <= math.exp(min(scale, 50)) <= 150:
        advice = f"{scale:.4f} is the logarithm of {math.exp(scale):.1f}: set logit_scale to the exponential."
        return Finding("warning", f"{scale:.4f}", expected, advice)
    if not 1 <= scale <= 150:
        advice = (
            f"A logit scale of {scale:.4g} is none that training leaves: look whether the weights were loaded whole."
        )
        return Finding("warning", f"{scale:.4g}", expected, advice)
    return Finding("ok", f"{scale:.2f}", expected)


def ties(model: ProbedModel) -> Finding:
    """Finding on the share of exactly equal scores of different texts with one image, in the model's own scores."""
    texts = model.texts
    assert texts.global_MD is not None  # its shape has been checked
    own_M = ~same_as_another(texts.global_MD)
    tied = pairs = 0
    for scores_NM in model.encoder.similarity(model.images, texts):
        sorted_NM = scores_NM[:, own_M.to(scores_NM.device)].sort(dim=1).values
        tied += int((sorted_NM[:, 1:] == sorted_NM[:, :-1]).sum())
        pairs += sorted_NM[:, 1:].numel()
    if pairs == 0:
        return left_out("too few different texts")
    share = tied / pairs
    measured = f"{100 * share:.2f} % of neighbouring scores in {model.encoder.precision}"
    expected = f"under {100 * _FEW:.1f} %"
    if share >= _MANY:
        advice = (
            "Different texts score exactly alike, so that ranks are decided by the tie rule: compute the scores in "
            "float32, or run with --precision float32."
        )
        return Finding("warning", measured, expected, advice)
    if share >= _FEW:
        return Finding("note", measured, expected, "Some scores tie: float32 scores would tell these texts apart.")
    return Finding("ok", measured, expected)
