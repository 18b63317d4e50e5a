"""The summary of a training: words and units, and no key of a file."""

import io
import re

from rich.console import Console

from sparc_bench.cli.training_summary import summary_table

SUMMARY = {
    "recipe": "tiny",
    "seed": 2,
    "steps": 200,
    "parameters": 67281,
    "seconds": 150.0,
    "resumed_from": 0,
    "precision": "float32",
    "unreadable": 0,
    "data": {"train": "ab" * 32, "val": "cd" * 32},
    "val": {"image_to_text_r1": 0.0625, "image_to_text_r5": 0.25, "text_to_image_r1": 0.047619},
    "held_out": {},
}
KIND = {"loss": 2.0, "standard_error": 0.125, "token_accuracy": 0.5}
GAIN = {"value": 0.1, "low": -0.1, "high": 0.3}
FINE = {
    "captions": 512,
    "scale": 14.28571,
    **dict.fromkeys(("true", "shuffled", "grey"), KIND),
    **dict.fromkeys(("gain_over_shuffled", "gain_over_grey"), GAIN),
    "verdict": "the fine loss does not need the image",
}


def printed(**changes):
    file = io.StringIO()
    Console(file=file, width=160).print(summary_table({**SUMMARY, **changes}))
    return file.getvalue()


def test_words_and_units():
    text = printed(held_out=FINE, resumed_from=100)
    assert "tiny, seed 2: 200 steps, going on after step 100" in text
    assert "67,281 parameters, computed in float32" in text
    assert "2.5 min" in text
    assert re.search(r"val, image to text +R@1 6\.2 %, R@5 25\.0 %", text)
    assert "2.0000 nats (standard error 0.1250), token accuracy 50.0 %" in text
    assert not re.search(r"[a-z]_[a-z]", text)


def test_figures_of_another_loss_are_named_in_words():
    assert "held out, gain over nothing: low value  0.5" in printed(held_out={"gain_over_nothing": {"low_value": 0.5}})


def test_tasks_that_watched_a_training_show_their_headlines():
    val = {"scenes_retrieval/text_to_image_r1": 0.0625, "scenes_retrieval/text_to_image_r5": 0.25}
    text = printed(val=val, val_headlines=["scenes_retrieval/text_to_image_r1"])
    assert re.search(r"val, scenes_retrieval/text_to_image_r1 +0\.062 *$", text, flags=re.MULTILINE)
    assert "r5" not in text


def test_a_run_from_before_hashes_has_a_summary_too():
    assert "sha256" not in printed(data={})
