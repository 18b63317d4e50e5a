"""Words of a caption, normalised as question-answering metrics do."""

from __future__ import annotations

import string
from typing import Literal

ARTICLES = frozenset({"a", "an", "the"})
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def caption_words(caption: str, articles: Literal["drop", "keep"]) -> tuple[str, ...]:
    """Lower-case, delete ASCII punctuation, split at white space; "a", "an" and "the" go where `articles` is "drop".

    This is the normalisation of K-Precision's reference implementation (Adlakha et al. 2023, "Evaluating correctness
    and faithfulness of instruction-following models for question answering"). A caption may come out empty.

    >>> caption_words("A man, on the T-shirt's back.", "drop")
    ('man', 'on', 'tshirts', 'back')
    """
    words = caption.lower().translate(_NO_PUNCTUATION).split()
    return tuple(word for word in words if articles == "keep" or word not in ARTICLES)
