"""Texts that hold the marks of a tokenizer, which CLIP's tokenizers take for the tokens themselves."""

from __future__ import annotations

import re

from sparc_bench.dataset import Examples
from sparc_bench.files.annotations import some

_MARK = re.compile(r"<\|?(?:start_?of_?text|end_?of_?text)\|?>", re.IGNORECASE)
"""The marks of open_clip (`<end_of_text>`) and of OpenAI and transformers (`<|endoftext|>`)."""


def token_mark_notes(data: Examples) -> list[str]:
    """Note about texts with such marks, if any; they are encoded as the model's own tokenizer does."""
    negatives = (text for negatives in data.values("negatives") for text in negatives)
    texts = dict.fromkeys((*data.captions, *negatives, *data.pool, *data.classes))
    marked = [text for text in texts if "<" in text and _MARK.search(text)]
    if not marked:
        return []
    marks = some(sorted({found for text in marked for found in _MARK.findall(text)}))
    return [
        f"{len(marked)} texts hold {marks}, which a CLIP tokenizer takes for its token, so that the model reads no "
        f"further than an end: {marked[0]!r}."
    ]
