"""Every probe: features that hold the answer, constant ones, noise; neither order nor test labels choose anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets import image_folder
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import knn, linear_probe
from sparc_bench.records import outcome_file
from tests.toys.encoders import LookupEncoder, blank, constant_encoder, item, label_key, random_encoder, split_of

CLASSES = ("red", "green", "blue", "yellow", "purple", "orange", "grey", "brown")
TRAIN, TEST = 80, 96


def probed(seed: int = 0) -> Examples:
    """As many train images of each class as of any other; train and test mixed, test classes at random."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(TRAIN) % len(CLASSES), rng.integers(0, len(CLASSES), size=TEST)])
    examples = [
        Example(id=f"i{i}", image=item(f"i{i}"), label=int(c), tags={"split": "train" if i < TRAIN else "test"})
        for i, c in enumerate(label)
    ]
    return split_of([examples[index] for index in rng.permutation(len(examples))], classes=CLASSES)


def linear(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = linear_probe.Options(
        vectors="unit",
        standardise=False,
        C=(0.1, 1.0, 10.0),
        held_out=0.2,
        max_iter=200,
        top_k=(1, 5),
        ties="expected",
    )
    return outcome_of(linear_probe, encoder, data, options)


def neighbours(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = knn.Options(k=(1, 5, 10), held_out=0.2, temperature=0.07, top_k=(1, 5), ties="expected")
    return outcome_of(knn, encoder, data, options)


def majority(encoder: LookupEncoder, data: Examples) -> Outcome:
    options = knn.Options(k=(7,), held_out=0, temperature=float("inf"), top_k=(1, 5), ties="expected")
    return outcome_of(knn, encoder, data, options)


Probe = Callable[[LookupEncoder, Examples], Outcome]
PROBES = pytest.mark.parametrize("probe", [linear, neighbours, majority])
CHANCE = {"top1": 1 / 8, "top5": 5 / 8, "mean_per_class": 1 / 8}


def values(outcome: Outcome) -> dict[str, float]:
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


@PROBES
def test_features_that_hold_the_label_score_one(probe: Probe):
    data = probed()
    outcome = probe(label_key(data, CLASSES), data)
    assert values(outcome) == {"top1": 1, "top5": 1 if probe is linear else pytest.approx(1), "mean_per_class": 1}
    assert outcome.examples["predicted"].tolist() == [data.examples[row].label for row in outcome.scored]


@PROBES
def test_equal_vectors_score_chance_exactly_and_tie_everywhere(probe: Probe):
    data = probed()
    outcome = probe(constant_encoder(), data)
    assert values(outcome) == pytest.approx(CHANCE, abs=1e-12)
    assert set(outcome.examples["correct"].tolist()) == {1 / 8}
    assert outcome.ties == TEST


@pytest.mark.slow
@PROBES
def test_noise_scores_chance(probe: Probe):
    data = probed()
    drawn = [values(probe(random_encoder(seed, width=8), data)) for seed in range(8)]
    for metric, expected in CHANCE.items():
        found = np.array([each[metric] for each in drawn])
        assert found.mean() == pytest.approx(expected, abs=5 * found.std(ddof=1) / np.sqrt(len(found)) + 1e-3), metric
        assert np.ptp(found) > 0, metric


@PROBES
def test_order_does_not_matter(probe: Probe):
    data = probed()
    order = np.random.default_rng(1).permutation(len(data))
    last = len(CLASSES) - 1
    shuffled = replace(
        data,
        examples=tuple(replace(data.examples[row], label=last - data.examples[row].label) for row in order),
        classes=CLASSES[::-1],
    )
    first, second = probe(random_encoder(width=8), data), probe(random_encoder(width=8), shuffled)
    assert values(first) == pytest.approx(values(second), abs=1e-12)
    assert [note for note in first.notes if "chosen" in note] == [note for note in second.notes if "chosen" in note]

    def by_id(outcome: Outcome, split: Examples) -> dict[str, float]:
        ids = [split.examples[row].id for row in outcome.scored]
        return dict(zip(ids, outcome.examples["correct"].tolist(), strict=True))

    assert by_id(first, data) == by_id(second, shuffled)


@PROBES
def test_labels_of_test_images_decide_nothing(probe: Probe):
    data = probed()
    other = replace(
        data,
        examples=tuple(
            e if e.tags["split"] == "train" else replace(e, label=(e.label + 3) % len(CLASSES)) for e in data.examples
        ),
    )
    first, second = probe(random_encoder(width=8), data), probe(random_encoder(width=8), other)
    assert first.notes == second.notes
    np.testing.assert_array_equal(first.examples["predicted"], second.examples["predicted"])
    assert values(first) != values(second)


@PROBES
def test_statistics_and_arrays_are_over_the_test_images(probe: Probe):
    data = probed()
    outcome = probe(random_encoder(), data)
    assert [data.examples[row].tags["split"] for row in outcome.scored] == ["test"] * TEST
    assert (outcome.counts["images"], outcome.counts["train_images"]) == (TEST, TRAIN)
    for statistic in [*outcome.metrics.values(), *outcome.groups["class"].values()]:
        assert statistic.clusters == TEST
    assert all(len(array) == TEST for array in outcome.examples.values())
    assert set(outcome.groups["class"]) == set(CLASSES)
    right = outcome.examples["correct"].mean()
    assert outcome.metrics["top1"].value == pytest.approx(right)


@PROBES
def test_the_constant_row_names_the_class_most_frequent_in_train(probe: Probe):
    data = probed()
    more = [
        Example(id=f"more {i}", image=item(f"more {i}"), label=2, tags={"split": "train"}) for i in range(len(CLASSES))
    ]
    of_blue = np.mean([e.label == 2 for e in data if e.tags["split"] == "test"])
    assert probe(random_encoder(), data).reference_rows["constant"] == pytest.approx(CHANCE)
    skewed = replace(data, examples=(*data.examples, *more))
    reference = probe(random_encoder(), skewed).reference_rows["constant"]
    assert reference["top1"] == pytest.approx(of_blue)
    assert reference["mean_per_class"] == pytest.approx(1 / 8)
    assert values(probe(constant_encoder(), skewed)) == pytest.approx(reference)


@PROBES
def test_a_limit_that_leaves_one_part_is_one_sentence(probe: Probe):
    data = probed()
    train = tuple(e for e in data if e.tags["split"] == "train")
    with pytest.raises(UserError, match="80 train images of 8 classes and 0 test images: give a larger --limit"):
        probe(random_encoder(), replace(data, examples=train))
    one = tuple(e for e in data if e.tags["split"] == "test" or e.label == 3)
    with pytest.raises(UserError, match="train images of two classes"):
        probe(random_encoder(), replace(data, examples=one))


@PROBES
def test_a_class_without_train_images_is_never_named_and_noted(probe: Probe):
    data = probed()
    lacking = replace(
        data, examples=tuple(e for e in data.examples if e.tags["split"] == "test" or e.label != CLASSES.index("grey"))
    )
    outcome = probe(label_key(data, CLASSES), lacking)
    grey = sum(e.label == CLASSES.index("grey") for e in data if e.tags["split"] == "test")
    assert grey > 0
    assert f"{grey} test images are of classes without a train image." in outcome.notes
    assert CLASSES.index("grey") not in outcome.examples["predicted"]
    assert outcome.groups["class"]["red"].value == 1


@pytest.mark.parametrize("name", ["linear_probe", "knn"])
def test_the_module_is_what_a_protocol_is(name: str):
    module = discovery.load("protocols", name)
    assert module.VERSION >= 1
    assert module.TITLE
    assert {"image", "global"} == module.NEEDS  # no text is asked for, and PACL, which has no such vector, is refused
    assert {"labels", "splits"} == module.DATA
    assert all(field.is_required() for field in module.Options.model_fields.values())
    assert "global" not in discovery.load("objectives", "pacl").Objective.gives


@pytest.fixture
def task(tmp_path) -> TaskCard:
    """Two classes of six photos, of which four are train."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            blank().save(tmp_path / "photos" / name / f"{number}.png")
    return TaskCard(
        name="probed",
        title="Probed",
        family="probes",
        dataset="image_folder",
        split="test",
        data={"folder": "photos", "train_per_class": 4},
        protocol="knn",
        options={"k": [1, 2], "held_out": 0.25, "temperature": 0.07, "top_k": [1], "ties": "expected"},
        headline="top1",
        expect={"images": 12, "train": 8, "test": 4, "classes": 2},
        source="test",
    )


def test_a_record_is_of_the_test_images(task: TaskCard, tmp_path):
    encoder = random_encoder(width=8)
    settings = Settings(results=tmp_path / "results", data_root=tmp_path)
    (result,) = evaluate_encoder(encoder, encoder.card, 0, [task], settings)
    assert result.record is not None, result.error
    assert result.record.n == result.record.metrics["top1"].n_clusters == 4
    assert result.record.counts | {"neighbours": 0} == {
        "images": 4,
        "train_images": 8,
        "held_out_images": 2,
        "classes": 2,
        "neighbours": 0,
        "images_with_tied_neighbours": 0,
    }
    assert result.record.reference_rows["constant"] == {"top1": 0.5, "mean_per_class": 0.5}
    assert result.record.reference_rows["random"].keys() == {"top1", "mean_per_class"}
    stored = outcome_file.read(result.path.with_suffix(".npz"))
    read = image_folder.read(tmp_path, "test", image_folder.Options(folder="photos", train_per_class=4))
    assert stored.ids == tuple(example.id for example in read if example.tags["split"] == "test")
    assert stored.metrics["top1"].value == pytest.approx(result.record.metrics["top1"].value, abs=1e-6)
    assert not [kind for kind, _ in encoder.asked if kind == "texts"]


def test_a_model_without_an_image_vector_is_refused_by_name(task: TaskCard, tmp_path):
    encoder = replace(random_encoder(), gives=frozenset({"image", "text", "patches"}))
    (result,) = evaluate_encoder(encoder, encoder.card, 0, [task], Settings(tmp_path / "results", tmp_path))
    assert result.error == "probed needs global of a model, which lookup does not give: leave this task out."
