"""A similarity matrix scores exactly what an encoder with these scores does."""

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_from, outcome_of
from sparc_bench.cards.binding import bind
from sparc_bench.errors import UserError
from sparc_bench.outputs import reader
from tests.toys.encoders import random_encoder


def scored(card, path, data):
    """Outcome of a file by the task's protocol."""
    task = bind(card)
    kind, outputs, _ = reader.read(path, task.protocol.OUTPUTS)
    return outcome_from(task.protocol, task.protocol.OUTPUTS[kind](outputs, data, task.options), data, task.options)


def values(outcome):
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


def scores_of(encoder, data, texts):
    images = encoder.images(data.views, frozenset({"global"}))
    return [matrix.numpy() for matrix in encoder.similarity(images, encoder.texts(texts, frozenset({"global"})))]


@pytest.mark.parametrize("protocol", ["retrieval", "minimal_pairs", "faithfulness"])
@pytest.mark.parametrize("twisted", [False, True], ids=["one matrix", "two matrices"])
def test_equals_the_encoder_that_it_came_from(task, data_of, matrix, protocol, twisted):
    card = task(protocol, data={"kind": "pairs", "n": 8} if protocol == "minimal_pairs" else None)
    data, bound = data_of(card), bind(card)
    encoder = random_encoder()
    encoder.twisted = twisted
    texts = list(dict.fromkeys(data.captions))
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(data)), rng.permutation(len(texts))
    to_text, to_image = scores_of(encoder, data, texts)
    ids = [data.views[row].id for row in rows]
    shuffled = {"image_to_text": to_text[rows][:, columns], "text_to_image": to_image[rows][:, columns]}
    named = [texts[column] for column in columns]
    path = (
        matrix(ids, named, None, **shuffled) if twisted else matrix(ids, named, shuffled["image_to_text"].astype("f8"))
    )
    theirs = outcome_of(bound.protocol, encoder, data, bound.options)
    ours = scored(card, path, data)
    assert values(ours) == pytest.approx(values(theirs), abs=1e-9, nan_ok=True)
    assert ours.ties == theirs.ties
    for name, array in theirs.examples.items():
        assert np.array_equal(ours.examples[name], array, equal_nan=True)
    assert ours.notes == theirs.notes


def test_one_classification_by_names_words_and_prompts(task, data_of, matrix):
    card = task("classification", data={"kind": "single", "n": 24})
    data = data_of(card)
    ids = [item.id for item in data.views]
    scores = np.random.default_rng(0).normal(size=(24, len(data.classes))).astype(np.float32)
    expected = np.mean(scores.argmax(axis=1) == [example.label for example in data])
    bound = bind(card)
    listed = bound.protocol.class_words("scenes_shape", data.classes)
    prompts = [t.replace("{}", word) for word in listed for t in bound.protocol.templates("scenes")]
    each = len(prompts) // len(listed)
    named = [(list(data.classes), scores), (listed, scores), (prompts, np.repeat(scores, each, axis=1))]
    for texts, matrix_of_texts in named:
        assert values(scored(card, matrix(ids, texts, matrix_of_texts), data))["top1"] == pytest.approx(expected)
    order = np.random.default_rng(1).permutation(len(data.classes))
    shuffled = matrix(ids, [data.classes[k] for k in order], scores[:, order])
    assert values(scored(card, shuffled, data))["top1"] == pytest.approx(expected)
    lacking = matrix(ids, data.classes[:-1], scores[:, :-1])
    with pytest.raises(
        UserError, match=f"lacks 1 of {len(data.classes)} texts of the task, such as '{data.classes[-1]}'"
    ):
        scored(card, lacking, data)


def test_the_mean_of_a_class_prompts_decides(task, data_of, matrix):
    """Two prompts that disagree: neither alone gives the right class, their mean does."""
    card = task("classification", data={"kind": "single", "n": 12}, prompts="openai7", classes="own")
    data, bound = data_of(card), bind(card)
    prompts = [t.replace("{}", word) for word in data.classes for t in bound.protocol.templates("openai7")]
    each = len(prompts) // len(data.classes)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(12, len(data.classes), each))
    noise -= noise.mean(axis=2, keepdims=True)
    right = np.eye(len(data.classes))[[example.label for example in data]]
    scores = (0.1 * right[..., None] + noise).reshape(12, -1)
    assert values(scored(card, matrix([i.id for i in data.views], prompts, scores), data))["top1"] == 1
    assert (scores[:, ::each].argmax(axis=1) != right.argmax(axis=1)).any()


def test_rows_and_columns_beyond_the_task_are_noted(task, data_of, matrix):
    card = task("retrieval")
    data = data_of(card)
    texts = [*dict.fromkeys(data.captions), "never asked for"]
    ids = [*(f"{item.id}.jpg" for item in data.views), "another photo"]
    path = matrix(ids, texts, np.random.default_rng(0).normal(size=(len(ids), len(texts))))
    outcome = scored(card, path, data)
    assert outcome.notes[-2:] == (
        f"1 images of {path} are not of this task and are left out (another photo).",
        f"1 texts of {path} are not of this task and are left out.",
    )


def test_equal_texts_may_have_equal_columns(task, data_of, matrix):
    card = task("retrieval")
    data = data_of(card)
    ids = [item.id for item in data.views]
    texts = list(dict.fromkeys(data.captions))
    scores = np.random.default_rng(0).normal(size=(len(ids), len(texts)))
    doubled = matrix(ids, [*texts, texts[0]], np.concatenate([scores, scores[:, :1]], axis=1), name="doubled.npz")
    assert values(scored(card, doubled, data)) == values(scored(card, matrix(ids, texts, scores), data))
    other = matrix(ids, [*texts, texts[0]], np.concatenate([scores, scores[:, :1] + 1], axis=1))
    with pytest.raises(UserError, match="two columns with different scores for the text"):
        scored(card, other, data)


def test_missing_images_and_texts(task, data_of, matrix):
    card = task("retrieval")
    data = data_of(card)
    ids, texts = [item.id for item in data.views], list(dict.fromkeys(data.captions))
    with pytest.raises(UserError, match=rf"lacks 2 of the task's 12 images \({ids[0]}, {ids[1]}\)"):
        scored(card, matrix(ids[2:], texts, np.zeros((10, len(texts)))), data)
    with pytest.raises(UserError, match=rf"lacks 1 of {len(texts)} texts of the task, such as '"):
        scored(card, matrix(ids, texts[1:], np.zeros((12, len(texts) - 1))), data)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"scores": np.zeros((2, 2))}, "`scores` of .* is 2 x 2, with 2 image_ids and 3 texts"),
        ({"scores": np.zeros(6)}, "`scores` of .* is 6, with 2"),
        ({"scores": np.full((2, 3), np.nan)}, "holds 6 numbers that are not finite .* such as nan in row 0, column 0"),
        ({"scores": np.full((2, 3), np.inf)}, "not finite in float64, such as inf"),
        ({"scores": np.array([[0, 1, 2], [3, 4, 2**60]])}, "holds integers from 0 to 1152921504606846976, more than"),
        ({"scores": np.zeros((2, 3), dtype=bool)}, "is an array of bool: give numbers"),
        ({"image_to_text": np.zeros((2, 3))}, "holds image_to_text: give either `scores`"),
        ({"scores": np.zeros((2, 3)), "text_to_image": np.zeros((2, 3))}, "holds scores and text_to_image"),
        ({"scores": np.zeros((2, 3)), "image_ids": np.zeros((2, 1))}, "`image_ids` of .* float64 array with 2 axes"),
        ({"scores": np.zeros((2, 3)), "texts": None}, "has no `texts`: add them"),
    ],
)
def test_matrices_that_do_not_fit(tmp_path, arrays, sentence):
    everything = {"image_ids": np.array(["a", "b"]), "texts": np.array(["x", "y", "z"]), **arrays}
    path = tmp_path / "m.npz"
    np.savez(path, **{name: array for name, array in everything.items() if array is not None})
    with pytest.raises(UserError, match=sentence):
        reader.read(path, {"similarity"})


def test_an_image_twice_is_refused(task, data_of, matrix):
    card = task("retrieval")
    data = data_of(card)
    ids = [item.id for item in data.views]
    texts = list(dict.fromkeys(data.captions))
    with pytest.raises(UserError, match="more than once: keep one entry for each image"):
        scored(card, matrix([*ids, ids[0]], texts, np.zeros((13, len(texts)))), data)
