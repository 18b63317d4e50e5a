"""Every image-level protocol: an encoder that knows the answer, a constant one, a random one; order never matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.dataset import Example, Examples
from sparc_bench.facets import Objects
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import (
    caption_choice,
    chair,
    classification,
    faithfulness,
    minimal_pairs,
    object_presence,
    retrieval,
)
from tests.toys.encoders import (
    LookupEncoder,
    answer_key,
    caption_key,
    constant_encoder,
    item,
    label_key,
    random_encoder,
    split_of,
)

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "grey", "brown")
THINGS = ("dog", "cat", "horse", "bird", "car", "boat", "house", "tree", "ball", "chair", "table", "hat", "man")
TAGS = {**dict.fromkeys(COLOURS, "ADJ"), **dict.fromkeys(THINGS, "NOUN"), "beside": "OTHER", "by": "OTHER"}


def caption(words: tuple[str, str, str, str], form: str) -> str:
    return "A {} {} {form} a {} {}.".format(*words, form=form)


def captioned(images: int, seed: int = 0, pool: int = 0) -> Examples:
    """Images with two captions each that say the same in another order; no caption is true of two images."""
    rng = np.random.default_rng(seed)
    seen: dict[tuple[str, ...], None] = {}
    while len(seen) < images + pool:
        a, c = rng.choice(COLOURS, 2, replace=False)
        b, d = rng.choice(THINGS, 2, replace=False)
        if (str(c), str(d), str(a), str(b)) not in seen:
            seen[str(a), str(b), str(c), str(d)] = None
    facts = list(seen)
    examples = [
        Example(
            id=f"image {i}",
            image=item(f"image {i}"),
            captions=(caption((a, b, c, d), "beside"), caption((c, d, a, b), "by")),
            caption_tags=("first", "second"),
        )
        for i, (a, b, c, d) in enumerate(facts[:images])
    ]
    others = tuple(caption(words, "beside") for words in facts[images:])
    return split_of(examples, word_tags={**TAGS, "a": "OTHER"}, pool=others)


def labelled(images: int, seed: int = 0) -> Examples:
    label = np.random.default_rng(seed).integers(0, len(COLOURS), size=images)
    label[: len(COLOURS)] = np.arange(len(COLOURS))
    examples = [Example(id=f"i{i}", image=item(f"i{i}"), label=int(value)) for i, value in enumerate(label)]
    return split_of(examples, classes=COLOURS)


def paired(groups: int) -> Examples:
    examples = [
        Example(
            id=f"{group}-{side}",
            image=item(f"{group}-{side}"),
            captions=(f"{'left' if side == 0 else 'right'} of {group}",),
            group=f"g{group}",
            tags={"edit": ("replace", "swap")[group % 2], "of": ("object", "attribute", "relation")[group % 3]},
        )
        for side in (0, 1)
        for group in range(groups)
    ]
    return split_of(examples)


def chosen(images: int) -> Examples:
    """Images with one true caption and one false one, with four false ones, and with two true ones and a false one."""
    numbers = {"two": (1, 1), "five": (1, 4), "both": (2, 1)}
    examples = [
        Example(
            id=f"i{i}",
            image=item(f"i{i}"),
            captions=tuple(f"true {k} of {i}" for k in range(numbers[group][0])),
            negatives=tuple(f"false {k} of {i}" for k in range(numbers[group][1])),
            tags={"group": group},
        )
        for i, group in enumerate((images // 3) * list(numbers) + ["two"] * (images % 3))
    ]
    return split_of(examples)


def choice_key(data: Examples) -> LookupEncoder:
    texts = [text for example in data for text in (*example.captions, *example.negatives)]
    truth = np.array([[text in example.captions for text in texts] for example in data])
    return answer_key([example.id for example in data], texts, truth)


def asked(images: int) -> Examples:
    """Images that show three of eight things; they are asked for these and for three others."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(images):
        names = rng.permutation(THINGS[:8])[:6].tolist()
        present = {name: place < 3 for place, name in enumerate(names)}
        examples.append(Example(id=f"i{i}", image=item(f"i{i}"), facets=(Objects(present),)))
    return split_of(examples, classes=THINGS[:8])


def presence_key(data: Examples) -> LookupEncoder:
    truth = np.array([[example.facet(Objects).present.get(name, False) for name in data.classes] for example in data])
    return answer_key([example.id for example in data], [f"a photo of a {name}" for name in data.classes], truth)


def with_objects(images: int) -> Examples:
    """Images with two captions each, and the things that these name."""
    data = captioned(images)
    examples = (
        replace(example, facets=(Objects({name: name in example.captions[0].split() for name in THINGS}),))
        for example in data
    )
    return replace(data, examples=tuple(examples), classes=THINGS, synonyms={name: name for name in THINGS})


@dataclass(frozen=True)
class Case:
    """A protocol on hand-made data, and what each encoder must score."""

    run: Callable[[LookupEncoder, Examples], Outcome]
    data: Callable[[int], Examples]
    key: Callable[[Examples], LookupEncoder]
    perfect: frozenset[str]
    constant: dict[str, float]
    chance: frozenset[str] | None = None
    """metrics that noise scores as equal scores do; None: all"""


def classify(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = classification.Options(prompts="bare", classes="own", top_k=(1, 5), ties="expected")
    return outcome_of(classification, encoder, data, options)


def retrieve(encoder: LookupEncoder, data: Examples) -> Outcome:
    return outcome_of(retrieval, encoder, data, retrieval.Options(ks=(1, 5, 10), truth="own", ties="expected"))


def faithful(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = faithfulness.Options(
        pool="all",
        references="union",
        tokens="instruct_qa",
        articles="drop",
        tagger="dataset",
        exact_hits="apart",
        ties="expected",
    )
    return outcome_of(faithfulness, encoder, data, options)


def presence(encoder: LookupEncoder, data: Examples) -> Outcome:
    return outcome_of(
        object_presence, encoder, data, object_presence.Options(prompts="object_presence", classes="own", folds=5)
    )


def hallucinate(encoder: LookupEncoder, data: Examples) -> Outcome:
    return outcome_of(chair, encoder, data, chair.Options(objects="instances_and_captions", ties="expected"))


def pairs(encoder: LookupEncoder, data: Examples) -> Outcome:
    return outcome_of(
        minimal_pairs, encoder, data, minimal_pairs.Options(ties="expected", group_by=("edit", "of", "edit+of"))
    )


def choose(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = caption_choice.Options(
        ties="expected", group_by="group", exclude=(), min_count=1, group_metrics=False, text_only=False
    )
    return outcome_of(caption_choice, encoder, data, options)


N = 120
CASES = {
    "classification": Case(
        classify,
        labelled,
        lambda data: label_key(data, data.classes),
        frozenset({"top1", "top5", "mean_per_class"}),
        {"top1": 1 / 8, "top5": 5 / 8, "mean_per_class": 1 / 8},
    ),
    "retrieval": Case(
        retrieve,
        captioned,
        caption_key,
        frozenset(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
        {
            "image_to_text_r1": 1 / N,
            "text_to_image_r1": 1 / N,
            "text_to_image_r10": 10 / N,
            "image_to_text_r5": 1 - (2 * N - 5) * (2 * N - 6) / (2 * N * (2 * N - 1)),
        },
    ),
    "faithfulness": Case(
        faithful, captioned, caption_key, frozenset({"k_precision", "k_precision_na", "r1"}), {"r1": 1 / N}
    ),
    "caption_choice": Case(
        choose,
        chosen,
        choice_key,
        frozenset({"macro_accuracy", "accuracy"}),
        {"macro_accuracy": (1 / 2 + 1 / 5 + 1 / 3) / 3, "accuracy": (1 / 2 + 1 / 5 + 1 / 3) / 3},
    ),
    "object_presence": Case(
        presence,
        asked,
        presence_key,
        frozenset({"auroc", "map", "f1", "precision", "recall", "accuracy"}),
        {"auroc": 1 / 2, "f1": 2 / 3, "accuracy": 1 / 2, "recall": 1, "yes_rate": 1},
        frozenset({"auroc", "accuracy"}),
    ),
    "chair": Case(
        hallucinate,
        with_objects,
        caption_key,
        frozenset({"faithful_objects", "faithful_captions", "coverage", "r1"}),
        {"r1": 1 / N},
    ),
    "minimal_pairs": Case(
        pairs,
        lambda images: paired(images // 2),
        caption_key,
        frozenset({"text_score", "image_score", "group_score"}),
        {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6},
    ),
}


def values(outcome: Outcome) -> dict[str, float]:
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_key_scores_one(name):
    case = CASES[name]
    data = case.data(N)
    outcome = case.run(case.key(data), data)
    assert {metric: values(outcome)[metric] for metric in case.perfect} == pytest.approx(dict.fromkeys(case.perfect, 1))
    if name not in ("faithfulness", "object_presence", "chair"):
        assert set(outcome.metrics) == case.perfect
    assert outcome.examples["correct"].tolist() == [1.0] * len(data)


@pytest.mark.parametrize("name", CASES)
def test_equal_vectors_score_what_the_tie_rule_says(name):
    case = CASES[name]
    data = case.data(N)
    outcome = case.run(constant_encoder(), data)
    assert {metric: values(outcome)[metric] for metric in case.constant} == pytest.approx(case.constant, abs=1e-12)
    assert outcome.ties > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_noise_scores_chance(name):
    case = CASES[name]
    data = case.data(N)
    drawn = [case.run(random_encoder(seed), data) for seed in range(8)]
    chance = values(case.run(constant_encoder(), data))
    for metric, expected in chance.items():
        if case.chance is not None and metric not in case.chance:
            continue
        found = np.array([outcome.metrics[metric].value for outcome in drawn])
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert found.mean() == pytest.approx(expected, abs=5 * error + 1e-3), metric
        assert np.ptp(found) > 0, metric


@pytest.mark.parametrize("name", CASES)
def test_order_does_not_matter(name):
    case = CASES[name]
    data = case.data(N)
    order = np.random.default_rng(1).permutation(len(data))
    shuffled = replace(
        data, examples=tuple(data.examples[index] for index in order), classes=tuple(reversed(data.classes))
    )
    if data.classes:
        last = len(data.classes) - 1
        relabelled = (e if e.label is None else replace(e, label=last - e.label) for e in shuffled.examples)
        shuffled = replace(shuffled, examples=tuple(relabelled))
    first, second = case.run(random_encoder(), data), case.run(random_encoder(), shuffled)
    assert values(first) == pytest.approx(values(second), abs=1e-12)
    np.testing.assert_allclose(first.examples["correct"][order], second.examples["correct"], atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_every_statistic_is_over_the_images_and_every_credit_a_fraction(name):
    case = CASES[name]
    data = case.data(40)
    outcome = case.run(random_encoder(), data)
    statistics = [*outcome.metrics.values(), *(s for group in outcome.groups.values() for s in group.values())]
    for statistic in statistics:
        assert statistic.clusters == len(data)
        assert 0 <= statistic.value <= 1
    for array in outcome.examples.values():
        assert len(array) == len(data)
    for row in outcome.reference_rows.values():
        assert all(0 <= value <= 1 for value in row.values()), row
    assert outcome.counts["images"] == len(data)


@pytest.mark.parametrize("name", CASES)
def test_the_module_is_what_a_protocol_is(name):
    module = discovery.load("protocols", name)
    assert module.VERSION >= 1
    assert module.TITLE
    assert not module.NEEDS - {"image", "text", "global", "branches", "patches", "tokens", "detect"}
    assert all(field.is_required() for field in module.Options.model_fields.values())


def test_a_model_with_two_matrices_is_scored_by_both():
    data = captioned(30)
    key = replace(caption_key(data), twisted=True)
    found = values(retrieve(key, data))
    assert found["image_to_text_r1"] == 1
    assert found["text_to_image_r1"] == 0
    two = paired(10)
    result = values(pairs(replace(caption_key(two), twisted=True), two))
    assert (result["text_score"], result["image_score"], result["group_score"]) == (1, 0, 0)


def test_a_model_that_scores_prompts_is_asked_for_all_it_has():
    data = labelled(20)
    encoder = replace(label_key(data, data.classes), prompt_ensemble="scores")
    assert values(classify(encoder, data))["top1"] == 1
