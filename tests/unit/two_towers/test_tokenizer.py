import json

import pytest

from sparc_bench.errors import UserError
from sparc_bench.two_towers.tokenizer import Tokenizer, build_vocabulary

WORDS = ["A", "purple", "cross", ",", "blueish", "красный", "..."]


@pytest.fixture(params=["own", "open_clip"])
def tokenizer(request):
    state = build_vocabulary(["a purple cross, a blue star"] * 3, 300) if request.param == "own" else ""
    return Tokenizer(40, state)


def test_places_are_those_of_the_words_own_ids(tokenizer):
    (ids,) = tokenizer([[" ".join(WORDS)]]).ids_BKL[0].tolist()
    places = tokenizer.places(WORDS)
    for word, place in zip(WORDS, places, strict=True):
        (alone,) = tokenizer([[word]]).ids_BKL[0].tolist()
        assert ids[place] == alone[1:-1], word
    assert places[0].start == 1
    assert places[-1].stop == len(ids) - 1


def test_words_beyond_the_context_have_no_place(tokenizer):
    small = Tokenizer(4, tokenizer.state)
    places = small.places(["purple", "a", "cross"])
    (mask,) = small([["purple a cross"]]).mask_BKL[0].tolist()
    covered = [number for place in places for number in range(len(mask))[place]]
    assert covered == [number for number, word in enumerate(mask) if word]
    assert places[-1].start == places[-1].stop


def test_a_caption_that_does_not_fall_into_its_words_is_refused():
    with pytest.raises(UserError, match=r"do not fall into its words: write it without odd signs\.$"):
        Tokenizer(40, "").places(["â€", "œhi"])  # together open_clip's cleaning takes them for a quotation mark


def test_marks_of_the_own_vocabulary_are_words_of_a_caption():
    tokenizer = Tokenizer(40, build_vocabulary(["a < b > c , eos pad"] * 3, 300))
    (ids,) = tokenizer([["a <eos> b <pad> c <bos>"]]).ids_BKL[0].tolist()
    assert [place for place, number in enumerate(ids) if number in (0, 1, 2)] == [0, len(ids) - 1]


@pytest.mark.parametrize(("least", "change"), [(261, 10**9), (271, 1)])
def test_vocabularies_with_other_ids_are_refused(least, change):
    state = json.loads(build_vocabulary(["a purple cross, a blue star"] * 3, 300))
    words = state["model"]["vocab"]
    state["model"]["vocab"] = {word: number + change * (number >= least) for word, number in words.items()}
    with pytest.raises(UserError, match="are not 0, 1, 2 and so on"):
        Tokenizer(40, json.dumps(state))


@pytest.mark.parametrize(
    "change",
    [
        {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}},
        {"padding": {"strategy": {"Fixed": 90}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
    ],
)
def test_a_vocabulary_neither_cuts_nor_pads(change):
    state = build_vocabulary(["a purple cross, a blue star"] * 3, 300)
    changed = json.dumps({**json.loads(state), **change})
    both = [Tokenizer(40, each)([["a purple cross"]]).ids_BKL.tolist() for each in (state, changed)]
    assert both[0] == both[1]
