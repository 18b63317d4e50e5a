"""Marks of tokens in texts are said."""

import open_clip

from sparc_bench.dataset import Example
from sparc_bench.evaluation.token_marks import token_mark_notes
from tests.toys.encoders import item, split_of


def test_open_clip_takes_the_mark_for_the_token():
    """The reason of the note: texts are encoded as open_clip's own tokenizer does."""
    tokenizer = open_clip.SimpleTokenizer()
    assert tokenizer.encode("a <END_OF_TEXT> dog")[1] == tokenizer.eot_token_id


def test_texts_with_marks_are_named():
    plain = split_of([Example("1", item("1"), captions=("a < b > c", "<end of text>"))])
    assert token_mark_notes(plain) == []
    captions, negatives = ("a <end_of_text> dog", "a dog"), ("<|endoftext|> x",)
    marked = split_of([Example("1", item("1"), captions, negatives=negatives)], pool=("<START_OF_TEXT>",))
    (note,) = token_mark_notes(marked)
    assert note.startswith("3 texts hold <START_OF_TEXT>, <end_of_text>, <|endoftext|>, which a CLIP tokenizer takes")
