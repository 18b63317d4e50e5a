import json
from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.facets import Objects
from sparc_bench.protocols import object_presence
from sparc_bench.protocols.object_presence import Options, image_folds
from sparc_bench.records import outcome_file
from tests.toys.encoders import LookupEncoder, constant_encoder, item, split_of

OPTIONS = Options(prompts="object_presence", classes="own", folds=2)
CLASSES = ("apple", "dog")


def data_of(*present):
    examples = [Example(id=f"i{k}", image=item(f"i{k}"), facets=(Objects(each),)) for k, each in enumerate(present)]
    return split_of(examples, classes=CLASSES)


def scoring(data, *scores):
    """An encoder that gives each image these scores with the two prompts."""
    rows = {example.id: np.array(row, dtype=np.float32) for example, row in zip(data, scores, strict=True)}
    columns = {f"a photo of a {name}": np.eye(2, dtype=np.float32)[k] for k, name in enumerate(CLASSES)}
    return LookupEncoder(lambda image_id: rows[image_id], lambda text: columns[text])


DATA = data_of({"apple": True, "dog": False}, {"dog": True, "apple": False}, {"apple": True}, {"dog": False})
SCORES = ((0.9, 0.5), (0.4, 0.8), (0.5, 0.0), (0.0, 0.6))


def found(outcome):
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


def test_worked_by_hand():
    outcome = outcome_of(object_presence, scoring(DATA, *SCORES), DATA, OPTIONS)
    values = found(outcome)
    # yes .9 .8 .5, no .5 .4 .6: .9 and .8 beat three each, .5 beats one and ties with one
    assert values["auroc"] == pytest.approx(7.5 / 9)
    # apple: .9 yes, .5 yes, .4 no; dog: .8 yes, then .6 and .5 no
    assert values["map"] == 1
    assert outcome.ties == 2
    assert outcome.counts == {"images": 4, "questions": 6, "yes": 3, "objects": 2, "objects_both": 2}


def test_thresholds_come_from_the_other_images():
    fold_N = image_folds([example.id for example in DATA], 2)
    assert sorted(fold_N.tolist()) == [0, 0, 1, 1]
    outcome = outcome_of(object_presence, scoring(DATA, *SCORES), DATA, OPTIONS)
    said = {}
    for fold in (0, 1):
        others = [
            (SCORES[n][CLASSES.index(name)], answer)
            for n, example in enumerate(DATA)
            if fold_N[n] != fold
            for name, answer in example.facet(Objects).present.items()
        ]
        thresholds = sorted({score for score, _ in others}, reverse=True)
        f1 = [
            2
            * sum(yes for score, yes in others if score >= t)
            / (sum(score >= t for score, _ in others) + sum(yes for _, yes in others))
            for t in thresholds
        ]
        best = int(np.argmax(f1))
        low = (thresholds[best] + thresholds[best + 1]) / 2 if best + 1 < len(thresholds) else -1
        for n, example in enumerate(DATA):
            if fold_N[n] == fold:
                said |= {(n, name): SCORES[n][CLASSES.index(name)] >= low for name in example.facet(Objects).present}
    right = [said[n, name] == answer for n, e in enumerate(DATA) for name, answer in e.facet(Objects).present.items()]
    assert found(outcome)["accuracy"] == pytest.approx(np.mean(right))
    hits = sum(
        said[n, name] and answer for n, e in enumerate(DATA) for name, answer in e.facet(Objects).present.items()
    )
    assert found(outcome)["f1"] == pytest.approx(2 * hits / (sum(said.values()) + 3))


def test_an_image_cannot_move_its_own_threshold():
    rng = np.random.default_rng(0)
    present = [{"apple": bool(k % 2), "dog": bool(k % 3)} for k in range(20)]
    data = data_of(*present)
    scores = rng.normal(size=(20, 2))
    before = outcome_of(object_presence, scoring(data, *scores), data, replace_folds(4))
    changed = scores.copy()
    changed[7] += 0.37
    after = outcome_of(object_presence, scoring(data, *changed), data, replace_folds(4))
    fold_N = image_folds([example.id for example in data], 4)
    same = [n for n in range(20) if n != 7 and fold_N[n] == fold_N[7]]
    assert before.examples["correct"][same].tolist() == after.examples["correct"][same].tolist()


def replace_folds(folds):
    return OPTIONS.model_copy(update={"folds": folds})


def test_equal_scores_are_exactly_chance():
    outcome = outcome_of(object_presence, constant_encoder(), DATA, OPTIONS)
    assert found(outcome)["auroc"] == 0.5
    assert found(outcome)["f1"] == pytest.approx(2 / 3)
    assert found(outcome)["yes_rate"] == 1
    assert outcome.ties == 6


def test_the_blind_row_knows_objects_and_no_image():
    # every apple is there, no dog is: without looking, each fold learns that from the others
    data = data_of(*[{"apple": True, "dog": False}] * 6)
    outcome = outcome_of(object_presence, constant_encoder(), data, OPTIONS)
    assert outcome.reference_rows["blind"]["auroc"] == 1
    assert outcome.reference_rows["blind"]["f1"] == 1
    assert np.isnan(found(outcome)["map"])
    assert outcome.counts["objects_both"] == 0


def test_fewer_images_than_folds():
    with pytest.raises(UserError, match="take more images, or fewer folds"):
        outcome_of(object_presence, constant_encoder(), DATA, replace_folds(5))


def test_stored_statistics_equal_their_own(tmp_path):
    outcome = outcome_of(object_presence, scoring(DATA, *SCORES), DATA, OPTIONS)
    content, _ = outcome_file.pack([e.id for e in DATA], outcome.metrics, outcome.groups, {}, {}, ["auroc"])
    path = tmp_path / "outcome.npz"
    path.write_bytes(content)
    back = outcome_file.read(path)
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1], [0, 3, 1, 0]])
    for name, statistic in outcome.metrics.items():
        np.testing.assert_array_equal(back.metrics[name].values_S(weights), statistic.values_S(weights))
    assert back.groups["object"].keys() == {"apple", "dog"}


def test_the_order_of_images_moves_no_fold():
    order = [2, 0, 3, 1]
    shuffled = replace(DATA, examples=tuple(DATA.examples[n] for n in order))
    ids = [example.id for example in DATA]
    assert image_folds(ids, 2)[order].tolist() == image_folds([e.id for e in shuffled], 2).tolist()


@pytest.mark.parametrize(
    ("name", "auroc", "f1"), [("random", 0.774, 0.713), ("popular", 0.909, 0.871), ("adversarial", 0.753, 0.729)]
)
def test_how_far_the_questions_of_pope_are_answered_without_looking(test_data, tmp_path, name, auroc, f1):
    task = bind(discovery.task(f"pope_{name}"))
    (tmp_path / "coco/val2014").mkdir(parents=True)
    (tmp_path / "pope").symlink_to(test_data / "pope")
    for row in (test_data / f"pope/coco_pope_{name}.json").read_text().splitlines():
        (tmp_path / "coco/val2014" / json.loads(row)["image"]).touch()
    data = task.dataset.read(tmp_path, name, task.data_options)
    outcome = outcome_of(object_presence, constant_encoder(), data, task.options)
    assert {key: data.counts()[key] for key in task.card.expect} == task.card.expect
    assert outcome.reference_rows["blind"]["auroc"] == pytest.approx(auroc, abs=5e-4)
    assert outcome.reference_rows["blind"]["f1"] == pytest.approx(f1, abs=5e-4)
    assert found(outcome)["auroc"] == 0.5
    assert outcome.ties == 3000
