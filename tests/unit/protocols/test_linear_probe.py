from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.card import parse
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.protocols import linear_probe
from sparc_bench.protocols._frozen_features import TrainTestSplit
from tests.toys.encoders import LookupEncoder, item, split_of

GRID = (0.01, 1.0, 100.0)
OPTIONS = {"vectors": "unit", "standardise": False, "C": GRID, "held_out": 0.25, "max_iter": 500, "ties": "expected"}


def options(**changes: object) -> linear_probe.Options:
    return parse(linear_probe.Options, {**OPTIONS, "top_k": (1,), **changes}, "Task t, table [options]")


def probed(
    train_XD: np.ndarray, train_X: np.ndarray, test_TD: np.ndarray, test_T: np.ndarray
) -> tuple[LookupEncoder, Examples]:
    """Names of classes and ids are in order already, so that rows and labels are those of the arrays."""
    vectors = {f"a{i:03d}": row for i, row in enumerate(train_XD)} | {f"b{i:03d}": row for i, row in enumerate(test_TD)}
    labels = [*train_X.tolist(), *test_T.tolist()]
    examples = [
        Example(id=name, image=item(name), label=label, tags={"split": "train" if name[0] == "a" else "test"})
        for name, label in zip(vectors, labels, strict=True)
    ]
    classes = tuple(f"class {label}" for label in range(max(labels) + 1))
    return LookupEncoder(lambda name: vectors[name], lambda _: np.zeros(1)), split_of(examples, classes=classes)


def clouds(images: int, classes: int, seed: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(images) % classes
    means = np.random.default_rng(100).normal(size=(classes, width))
    vectors = means[label] + np.random.default_rng(seed).normal(size=(images, width))
    return vectors.astype(np.float32), label


def accuracies(note: str) -> list[float]:
    """The held-out accuracies that a note gives, as fractions."""
    return [float(part.split()[1]) / 100 for part in note.split(": ")[1].rstrip(".").split(", ")]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("standardise", [False, True])
def test_scikit_learn_itself_says_the_same(classes, standardise):
    train_XD, train_X = clouds(80, classes, seed=1)
    test_TD, test_T = clouds(60, classes, seed=2)
    encoder, data = probed(train_XD, train_X, test_TD, test_T)
    outcome = outcome_of(linear_probe, encoder, data, options(standardise=standardise))

    def fitted(rows: np.ndarray, c: float) -> tuple[StandardScaler, LogisticRegression]:
        scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(normalize(train_XD[rows]))
        model = LogisticRegression(C=c, tol=1e-8, max_iter=2000)
        return scaler, model.fit(scaler.transform(normalize(train_XD[rows])), train_X[rows])

    held_X = TrainTestSplit.of(data).held_out(0.25)
    found = []
    for c in GRID:
        scaler, model = fitted(~held_X, c)
        found.append(model.score(scaler.transform(normalize(train_XD[held_X])), train_X[held_X]))
    assert accuracies(outcome.notes[0]) == pytest.approx(found, abs=5e-4)
    best = GRID[int(np.argmax(found))]
    assert outcome.notes[0].startswith(f"C = {best:g} was chosen by accuracy on 20 held-out train images: 0.01 ")
    scaler, model = fitted(np.ones(80, dtype=bool), best)
    assert outcome.examples["predicted"].tolist() == model.predict(scaler.transform(normalize(test_TD))).tolist()
    right = model.score(scaler.transform(normalize(test_TD)), test_T)
    assert outcome.metrics["top1"].value == pytest.approx(right)
    assert 1 / classes < right < 1


def test_vectors_as_given_are_not_normalised():
    train_X = np.arange(40) % 2
    train_XD = np.outer(1.0 + 9 * train_X, [1.0, 0.0])  # only the length tells the classes apart
    encoder, data = probed(train_XD, train_X, train_XD, train_X)
    assert outcome_of(linear_probe, encoder, data, options(vectors="given")).metrics["top1"].value == 1
    unit = outcome_of(linear_probe, encoder, data, options(vectors="unit"))
    assert (unit.metrics["top1"].value, unit.ties) == (0.5, 40)


def test_c_is_not_what_the_test_images_would_choose():
    # few images in many dimensions with wrong labels among them: what is held out asks for a small C, but the test
    # images are the fitted ones again, wrong labels and all, which the largest C has learnt by heart
    rng = np.random.default_rng(3)
    truth = np.arange(120) % 2
    train_XD = rng.normal(size=(120, 200)) + np.outer(2 * truth - 1, np.eye(200)[0] * 3)
    train_X = np.where(rng.random(120) < 0.2, 1 - truth, truth)
    encoder, data = probed(train_XD, train_X, train_XD, train_X)
    outcome = outcome_of(linear_probe, encoder, data, options())
    on_test = [
        LogisticRegression(C=c, max_iter=2000).fit(normalize(train_XD), train_X).score(normalize(train_XD), train_X)
        for c in GRID
    ]
    assert on_test[-1] == 1 > on_test[0]
    assert not outcome.notes[0].startswith("C = 100 ")


def test_the_held_out_part_is_stratified_fixed_and_independent_of_order():
    train_XD, train_X = clouds(37, 3, seed=1)
    _, data = probed(train_XD, train_X, train_XD, train_X)
    parts = TrainTestSplit.of(data)
    held_X = parts.held_out(0.25)
    assert np.bincount(parts.train_class_X).tolist() == [13, 12, 12]
    assert np.bincount(parts.train_class_X[held_X]).tolist() == [3, 3, 3]
    ids = {data.examples[row].id for row in parts.train_X[held_X]}
    assert ids == {"a027", "a024", "a015", "a001", "a004", "a013", "a011", "a026", "a008"}  # of sha256sum
    turned = Examples(data.dataset, data.split, data.examples[::-1], data.classes)
    again = TrainTestSplit.of(turned)
    assert {turned.examples[row].id for row in again.train_X[again.held_out(0.25)]} == ids


def test_a_class_keeps_an_image_and_lends_one():
    train_X = np.array([0, 1, 1, 2, 2, 2, 2])
    _, data = probed(np.eye(7), train_X, np.eye(7), train_X)
    parts = TrainTestSplit.of(data)
    assert np.bincount(parts.train_class_X[parts.held_out(0.01)], minlength=3).tolist() == [0, 1, 1]
    assert np.bincount(parts.train_class_X[parts.held_out(0.99)], minlength=3).tolist() == [0, 1, 3]
    _, single = probed(np.eye(2), np.arange(2), np.eye(2), np.arange(2))
    with pytest.raises(UserError, match="one train image of each class"):
        TrainTestSplit.of(single).held_out(0.5)


def test_equal_accuracies_take_the_smallest_c_and_an_end_of_the_grid_is_noted():
    train_X = np.arange(40) % 2
    train_XD = np.eye(2)[train_X]
    encoder, data = probed(train_XD, train_X, train_XD, train_X)
    notes = outcome_of(linear_probe, encoder, data, options()).notes
    assert notes[0].startswith("C = 0.01 was chosen by accuracy on 10 held-out train images: 0.01 100.0 %, 1 100.0 %")
    assert notes[1] == "C = 0.01 is an end of its grid: a wider one may score higher."


def test_what_does_not_converge_is_a_note():
    train_XD, train_X = clouds(80, 3, seed=1)
    encoder, data = probed(train_XD, train_X, train_XD, train_X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = outcome_of(linear_probe, encoder, data, options(max_iter=1, top_k=(1, 5))).notes
    assert notes[0] == "top5 is left out: there are only 3 classes."
    assert "L-BFGS had not converged on the part of train at C = 0.01, 1, 100." in notes
    assert "L-BFGS had not converged on all of train after 1 iterations." in notes
    assert not any("converged" in note for note in outcome_of(linear_probe, encoder, data, options()).notes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"C": (1.0, 0.1)}, "'C' must be two or more numbers above 0, ascending, but is"),
        ({"C": (1.0, 1.0)}, "'C' must be"),
        ({"C": (1.0,)}, "'C' must be"),
        ({"C": (0.0, 1.0)}, "'C' must be"),
        ({"held_out": 1.0}, "less than 1"),
    ],
)
def test_a_grid_that_cannot_be_is_one_sentence(change, sentence):
    with pytest.raises(UserError, match=sentence):
        options(**change)
