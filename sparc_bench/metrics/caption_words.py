"""Words of a caption, for metrics that count words (K-Precision)."""

from __future__ import annotations

import re
import string
from typing import Literal

ARTICLES = frozenset({"a", "an", "the"})
Tokens = Literal["instruct_qa", "letters"]
"""Rule that splits a lower-case caption into words.

instruct_qa: ASCII punctuation is deleted and the rest split at white space ("T-shirt" becomes "tshirt"), as in
K-Precision's original implementation (McGill-NLP/instruct-qa, Adlakha et al. 2023).
letters: every run of letters and digits is a word ("T-shirt" becomes "t" and "shirt").
"""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_RUN = re.compile(r"[^\W_]+")


def caption_words(caption: str, articles: Literal["drop", "keep"], tokens: Tokens = "instruct_qa") -> tuple[str, ...]:
    """Words of a caption in lower case, without "a", "an" and "the" if `articles` is "drop"; may be empty.

    >>> caption_words("A man, on the T-shirt's back.", "drop")
    ('man', 'on', 'tshirts', 'back')
    >>> caption_words("A man, on the T-shirt's back.", "drop", "letters")
    ('man', 'on', 't', 'shirt', 's', 'back')
    """
    lower = caption.lower()
    words = lower.translate(_NO_PUNCTUATION).split() if tokens == "instruct_qa" else _RUN.findall(lower)
    return tuple(word for word in words if articles == "keep" or word not in ARTICLES)
