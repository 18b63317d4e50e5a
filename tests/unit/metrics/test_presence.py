import numpy as np
import pytest

from sparc_bench.metrics.estimate import estimate
from sparc_bench.metrics.presence import Auroc, ObjectAP, best_f1_threshold, tied_questions

# image 0: a .9 yes, b .5 no; image 1: a .5 yes, b .7 no, a .1 no
SCORE = np.array([0.9, 0.5, 0.5, 0.7, 0.1])
IMAGE = np.array([0, 0, 1, 1, 1])
OBJECT = np.array([0, 1, 0, 1, 0])
YES = np.array([True, False, True, False, False])


def of(kind, score=SCORE, images=2):
    return kind.of(score, IMAGE, OBJECT, YES, images)


def test_auroc_by_hand():
    # .9 beats three of three; .5 ties with one, loses to one, beats one: 1.5 of three
    assert of(Auroc).value == pytest.approx(4.5 / 6)


def test_ap_by_hand():
    # a: yes, yes, no in this order; b has no yes and is left out
    assert of(ObjectAP).value == 1
    # a: one yes, then a yes and a no at one level: precision 1, then 2/3
    assert of(ObjectAP, np.array([0.9, 0.5, 0.1, 0.7, 0.1])).value == pytest.approx((1 + 2 / 3) / 2)
    # the no first: precision 1/2, then 2/3
    assert of(ObjectAP, np.array([0.9, 0.5, 0.2, 0.7, 0.95])).value == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_equal_scores_are_exactly_chance_and_all_tied():
    rng = np.random.default_rng(0)
    yes = rng.random(301) < 0.3
    image = np.sort(rng.integers(0, 50, 301))
    flat = Auroc.of(np.full(301, 0.25), image, np.zeros(301, dtype=int), yes, 50)
    assert flat.value == 0.5
    assert tied_questions(flat.level_Q, yes) == 301
    assert (flat.values_S(rng.integers(0, 3, (20, 50)).astype(float)) == 0.5).all()
    assert ObjectAP.of(np.zeros(301), image, np.zeros(301, dtype=int), yes, 50).value == pytest.approx(yes.mean())


def test_only_questions_of_the_other_answer_tie():
    assert tied_questions(np.array([0, 0, 1, 1, 2]), np.array([True, True, True, False, False])) == 2


def test_weights_are_those_of_repeated_images():
    twice = np.r_[0, 1, 2, 3, 4, 2, 3, 4]
    image = np.r_[IMAGE, 2, 2, 2]
    for kind in (Auroc, ObjectAP):
        repeated = kind.of(SCORE[twice], image, OBJECT[twice], YES[twice], 3)
        assert of(kind).values_S(np.array([[1.0, 2.0]]))[0] == pytest.approx(repeated.value)


def test_one_answer_alone_is_no_number():
    assert np.isnan(of(Auroc).values_S(np.array([[0.0, 0.0]]))[0])
    assert np.isnan(of(ObjectAP).values_S(np.array([[1.0, 0.0]]))[0])


def test_images_without_questions_are_clusters():
    statistic = of(Auroc, images=5)
    assert statistic.clusters == 5
    assert statistic.value == of(Auroc).value


def test_an_interval_holds_the_value():
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(60), 6)
    yes = np.tile([True, False], 180)
    statistic = Auroc.of(rng.normal(size=360) + yes, image, np.zeros(360, dtype=int), yes, 60)
    found = estimate(statistic)
    assert found.low < statistic.value < found.high
    assert 0.005 < found.se < 0.06
    assert found.bias == pytest.approx(0, abs=1e-3)


def test_all_right_gets_wilsons_interval():
    found = estimate(of(Auroc, np.array([1.0, 0.0, 1.0, 0.0, 0.0])))
    assert (found.value, found.method) == (1.0, "equal")
    assert found.low < 0.6


def test_threshold_by_hand():
    # "yes" from .9 on: F1 2/3; from .7: 1/2; from .5: 2/3 (2 of 4 said, 2 there); all: 4/7
    assert best_f1_threshold(SCORE, YES) == pytest.approx(0.8)
    assert best_f1_threshold(np.zeros(4), np.array([True, False, False, True])) == -np.inf
    assert best_f1_threshold(np.arange(3.0), np.zeros(3, dtype=bool)) == -np.inf
