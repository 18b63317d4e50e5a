"""Checks of the text tower: batching, padding, case, white space, punctuation, length.

Shapes: M texts, D joint width.
"""

from __future__ import annotations

import torch

from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.probed_model import ProbedModel, apart, distance

_TEXT = "a photo of a red circle on the left of a blue square"
_SAME_LENGTH = "a blue square on the left of a photo of a red circle"
_WORDS = 300
"""Words in the text of the length check."""

_ODD = ("", "?!", "\N{DOG FACE} déjà vu")


def _differ(model: ProbedModel, vector_D: torch.Tensor, other_D: torch.Tensor) -> bool:
    """Whether two texts of one call reached the model as different tokens."""
    return not distance(vector_D, other_D) <= model.same_call


def _cosine(vector_D: torch.Tensor, other_D: torch.Tensor) -> str:
    return f"cosine {torch.cosine_similarity(vector_D.double(), other_D.double(), dim=-1):.4f}"


def text_batches(model: ProbedModel) -> Finding:
    """Finding on a text encoded alone, twice, and beside another text of the same words (so of the same length)."""
    alone_1D = model.text_vectors([_TEXT])
    beside_MD = model.text_vectors([_SAME_LENGTH, _TEXT, _TEXT])
    worst = max(distance(beside_MD[1:2], alone_1D), distance(beside_MD[2:], alone_1D))
    expected = f"alone or among others at most {model.tolerance:.0e} apart"
    if not worst <= model.tolerance:
        advice = "A text's vector depends on the texts beside it: let no operation of encode_texts mix rows of a batch."
        return Finding("fail", apart(worst), expected, advice)
    return Finding("ok", apart(worst), expected)


def padding(model: ProbedModel) -> Finding:
    """Finding on a short text encoded alone and beside a long one, which may lengthen its padding."""
    alone_1D = model.text_vectors([_TEXT])
    beside_MD = model.text_vectors([_TEXT, probe.LONG])
    worst = distance(beside_MD[:1], alone_1D)
    expected = f"alone or beside a long text at most {model.tolerance:.0e} apart"
    if not worst <= model.tolerance:
        advice = (
            "A text's vector depends on how far it is padded: pad every text to the context length, as SigLIP needs, "
            "or keep padding out of attention and pooling."
        )
        return Finding("fail", apart(worst), expected, advice)
    return Finding("ok", apart(worst), expected)


def case(model: ProbedModel) -> Finding:
    """Finding on a text in lower and in upper case."""
    lower_D, upper_D = model.text_vectors([_TEXT, _TEXT.upper()])
    if not _differ(model, upper_D, lower_D):
        return Finding("ok", "same vector", "upper and lower case alike")
    advice = (
        "Upper and lower case have different vectors, which CLIP's and SigLIP's text cleaning prevents: lower-case the "
        "texts before the tokenizer, unless the model was trained on cased text."
    )
    return Finding("warning", _cosine(upper_D, lower_D), "upper and lower case alike", advice)


def spaces(model: ProbedModel) -> Finding:
    """Finding on white space around and between words."""
    plain_D, spaced_D = model.text_vectors([_TEXT, f"  {_TEXT.replace(' ', '  ')}\n"])
    if not _differ(model, spaced_D, plain_D):
        return Finding("ok", "same vector", "white space does not count")
    advice = (
        "White space changes the vector, which CLIP's text cleaning prevents: strip the texts and join their words by "
        "single spaces before the tokenizer, unless the model was trained without that."
    )
    return Finding("warning", _cosine(spaced_D, plain_D), "white space does not count", advice)


def punctuation(model: ProbedModel) -> Finding:
    """Finding on a full stop at the end: a token of its own to CLIP, removed by SigLIP's text cleaning."""
    plain_D, stopped_D = model.text_vectors([_TEXT, f"{_TEXT}."])
    if not _differ(model, stopped_D, plain_D):
        return Finding("ok", "same vector", "known: a full stop may count (CLIP) or not (SigLIP)")
    advice = (
        "A full stop changes the vector, as in CLIP: prompts must end as the published ones do; a SigLIP model should "
        "not see punctuation."
    )
    return Finding("note", _cosine(stopped_D, plain_D), "known: a full stop may count (CLIP) or not (SigLIP)", advice)


def length(model: ProbedModel) -> Finding:
    """Finding on the number of words that are seen of a text longer than any context."""
    words = ["red"] * _WORDS
    expected = "a long text is cut, and does not stop the run"
    try:
        whole_D = model.text_vectors([" ".join(words)])[0]
    except Exception as error:  # any error of a tokenizer is the finding
        advice = "A caption longer than the context stops the run: cut it in the tokenizer (truncate), end token kept."
        return Finding("fail", f"{type(error).__name__}: {error}", expected, advice)

    def seen(word: int) -> bool:
        changed = [*words[:word], "blue", *words[word + 1 :]]
        return distance(model.text_vectors([" ".join(changed)])[0], whole_D) > model.same_call

    if seen(_WORDS - 1):
        return Finding("ok", f"all of {_WORDS} words are seen", expected)
    low, high = 0, _WORDS - 1  # the first unseen word is at most `high`
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if seen(middle) else (low, middle)
    if low == 0:
        return left_out("'red' and 'blue' are one word to the tokenizer")
    advice = f"Texts are cut after about {low} words like 'red': tasks with longer captions measure their beginnings."
    return Finding("note", f"{low} of {_WORDS} words are seen", expected, advice)


def odd_texts(model: ProbedModel) -> Finding:
    """Finding on the empty text, punctuation alone and non-ASCII characters."""
    expected = "a finite vector for any text"
    for text in _ODD:
        try:
            bad = not bool(torch.isfinite(model.text_vectors([text])).all())
        except Exception as error:  # any error of a tokenizer is the finding
            advice = f"The text {text!r} stops the run: give every text at least its start and end tokens."
            return Finding("warning", f"{type(error).__name__}: {error}", expected, advice)
        if bad:
            advice = f"The text {text!r} gives NaN: give every text at least its start and end tokens."
            return Finding("warning", f"NaN for {text!r}", expected, advice)
    return Finding("ok", "finite for " + ", ".join(map(repr, _ODD)), expected)
