from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import knn
from tests.unit.protocols.test_linear_probe import clouds, probed

EQUAL = float("inf")


def options(**changes: object) -> knn.Options:
    values = {"k": (3,), "held_out": 0, "temperature": EQUAL, "top_k": (1,), "ties": "expected", **changes}
    return parse(knn.Options, values, "Task t, table [options]")


def at(*degrees: float) -> np.ndarray:
    """Vectors of different lengths in these directions: only the angle may count."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 + np.arange(len(degrees)))[:, None]


def six_points(test: float, label: int, **changes: object) -> Outcome:
    """Class 0 lies at 0, 40 and 200 degrees, class 1 at 20, 60 and 90."""
    encoder, data = probed(at(0, 20, 40, 60, 90, 200), np.array([0, 1, 0, 1, 1, 0]), at(test), np.array([label]))
    return outcome_of(knn, encoder, data, options(**changes))


# from 25 degrees: class 1 at 5, class 0 at 15, class 0 at 25, class 1 at 35, class 1 at 65, class 0 at 175
@pytest.mark.parametrize(("k", "right"), [(1, 0), (2, 0.5), (3, 1), (4, 0.5), (5, 0), (6, 0.5)])
def test_the_majority_among_six_points(k, right):
    outcome = six_points(25, 0, k=(k,))
    assert outcome.metrics["top1"].value == right
    assert outcome.ties == (right == 0.5)
    assert outcome.counts == {
        "images": 1,
        "train_images": 6,
        "classes": 2,
        "neighbours": k,
        "images_with_tied_neighbours": 0,
    }


def test_votes_weigh_by_similarity():
    # with temperature .07 and k = 4: class 1 exp((cos 35 - cos 5) / .07) + 1 = 1.080, class 0 .649 + .277 = .926
    assert six_points(25, 1, k=(4,), temperature=0.07).metrics["top1"].value == 1
    # with k = 3 class 0 has .926 of 1.926 and loses, where the plain majority wins
    assert six_points(25, 0, k=(3,), temperature=0.07).metrics["top1"].value == 0
    assert six_points(25, 0, k=(3,), temperature=100).metrics["top1"].value == 1


def test_neighbours_that_tie_for_the_last_place_share_it():
    mirrored = np.array([[0.8, 0.6], [0.8, -0.6], [0.6, 0.8], [-1.0, 0.0]])
    encoder, data = probed(mirrored, np.array([0, 1, 1, 0]), np.array([[1.0, 0.0]]), np.array([0]))
    one = outcome_of(knn, encoder, data, options(k=(1,)))
    assert (one.metrics["top1"].value, one.ties, one.counts["images_with_tied_neighbours"]) == (0.5, 1, 1)
    two = outcome_of(knn, encoder, data, options(k=(2,)))
    assert (two.metrics["top1"].value, two.ties, two.counts["images_with_tied_neighbours"]) == (0.5, 1, 0)
    three = outcome_of(knn, encoder, data, options(k=(3,)))
    assert (three.metrics["top1"].value, three.ties) == (0, 0)
    # three copies tie for two places: two of one class outvote the one of the other
    copies = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    encoder, data = probed(copies, np.array([0, 0, 1, 1]), np.array([[1.0, 0.0]]), np.array([0]))
    outcome = outcome_of(knn, encoder, data, options(k=(2,)))
    assert (outcome.metrics["top1"].value, outcome.counts["images_with_tied_neighbours"]) == (1, 1)


def test_places_among_tied_neighbours():
    cosine_NJ = np.array([[1, 1, 0.5, 0.5, 0.5, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 0, 0, 0]], np.float32)
    third = 1 / 3
    np.testing.assert_allclose(
        knn.neighbour_shares(cosine_NJ, 3), [[1, 1, third, third, third, 0], [1, 1, 1, 0, 0, 0], [0.5] * 6], atol=1e-12
    )
    np.testing.assert_allclose(
        knn.neighbour_shares(cosine_NJ, 1), [[0.5, 0.5, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1 / 6] * 6]
    )


def test_many_copies_beyond_the_last_place_are_all_found(monkeypatch):
    # 3 near ones and 40 copies that tie for the other 2 places: 30 of class 1 and 10 of class 0
    train_XD = np.array([[1.0, 0.0]] * 3 + [[0.8, 0.6]] * 40 + [[0.0, 1.0]] * 20)
    train_X = np.array([0, 0, 1, *[1] * 30, *[0] * 10, *[0] * 20])
    encoder, data = probed(train_XD, train_X, np.array([[1.0, 0.0]] * 5), np.array([0, 1, 0, 1, 0]))
    votes = []
    monkeypatch.setattr(knn, "_CELLS", 20)  # several runs of images

    def kept(*args: object) -> np.ndarray:
        votes.append(sums(*args))
        return votes[-1]

    sums = knn._Neighbours._sums
    monkeypatch.setattr(knn._Neighbours, "_sums", kept)
    outcome = outcome_of(knn, encoder, data, options(k=(5,)))
    np.testing.assert_allclose(np.concatenate(votes), [[2 + 0.5, 1 + 1.5]] * 5, atol=1e-6)
    assert outcome.counts["images_with_tied_neighbours"] == 5
    assert (outcome.metrics["top1"].value, outcome.ties) == (0.5, 5)


@pytest.mark.parametrize("temperature", [0.07, EQUAL])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_scikit_learns_own_classifier_says_the_same(k, temperature):
    train_XD, train_X = clouds(90, 4, seed=1)
    test_TD, test_T = clouds(70, 4, seed=2)
    encoder, data = probed(train_XD, train_X, test_TD, test_T)
    outcome = outcome_of(knn, encoder, data, options(k=(k,), temperature=temperature, top_k=(1, 2)))

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / temperature)

    reference = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute", weights=weights)
    share_TC = reference.fit(normalize(train_XD), train_X).predict_proba(normalize(test_TD))
    own_T1 = np.take_along_axis(share_TC, test_T[:, None], axis=1)
    sure_T = np.abs(np.where(np.arange(4) == test_T[:, None], np.inf, share_TC - own_T1)).min(axis=1) > 1e-6
    assert sure_T.sum() > 25
    right_T = share_TC.argmax(axis=1) == test_T
    np.testing.assert_array_equal(outcome.examples["correct"][sure_T], right_T[sure_T])
    assert 0.25 < outcome.metrics["top1"].value < outcome.metrics["top2"].value


def test_k_is_chosen_on_the_held_out_part_and_equal_accuracies_take_the_largest():
    # many labels are wrong: one neighbour says little, many say the truth
    rng = np.random.default_rng(0)
    truth = np.arange(400) % 2
    train_XD = at(*(truth * 90 + rng.normal(scale=5, size=400)))
    train_X = np.where(rng.random(400) < 0.3, 1 - truth, truth)
    encoder, data = probed(train_XD, train_X, train_XD, train_X)
    outcome = outcome_of(knn, encoder, data, options(k=(1, 31), held_out=0.2))
    assert outcome.notes[0].startswith("k = 31 was chosen by accuracy on 80 held-out train images: 1 ")
    assert outcome.counts["held_out_images"] == 80
    # the test images are the train images: by them one neighbour, which is the image itself, would be chosen
    alone = outcome_of(knn, encoder, data, options(k=(1,)))
    assert alone.metrics["top1"].value > 0.9
    assert outcome.metrics["top1"].value < 0.8
    clear = probed(train_XD, truth, train_XD, truth)
    assert outcome_of(knn, *clear, options(k=(3, 31), held_out=0.2)).notes[0].startswith("k = 31 was chosen")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": ()}, "name at least one k, each of 1 or more"),
        ({"k": (0, 3), "held_out": 0.1}, "each of 1 or more"),
        ({"k": (1, 3)}, "several k need held_out above 0"),
        ({"held_out": 0.1}, "a single k needs held_out = 0"),
        ({"temperature": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(change, sentence):
    with pytest.raises(UserError, match=sentence):
        options(**change)


def test_more_neighbours_than_train_images_is_one_sentence():
    with pytest.raises(UserError, match="k = 7 is more than the 6 train images: give a smaller k"):
        six_points(25, 0, k=(7,))
