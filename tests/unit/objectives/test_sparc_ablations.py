"""SPARC's other weights by hand: no threshold, softmax, and the threshold on weights that sum to 1."""

import pytest
import torch

from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.sparc import Objective, SparcOptions, alignment_weights, fine_grained_loss

RULES = ("sparse", "dense", "softmax", "sum_normalised")
# a token whose inner products with the five patches are these; min-max scaled: 0, .1, .2, .7, 1, their sum 2
TOKEN = torch.tensor([[[1.0, 0.0]]])
PATCHES = torch.tensor([[[3.0, 1.0], [4.0, 0.0], [5.0, -1.0], [10.0, 0.0], [13.0, 2.0]]])


def weights(rule, threshold=None):
    return alignment_weights(PATCHES, TOKEN, threshold, rule)[0, 0]


@pytest.mark.parametrize(
    ("rule", "threshold", "expected"),
    [
        # 1/P = .2 keeps the .2
        ("sparse", None, [0, 0, 0.2, 0.7, 1]),
        ("dense", None, [0, 0.1, 0.2, 0.7, 1]),
        # divided by 2: 0, .05, .1, .35, .5, of which .2 keeps two
        ("sum_normalised", None, [0, 0, 0, 0.7, 1]),
        ("sum_normalised", 0.4, [0, 0, 0, 0, 1]),
        ("sum_normalised", 0.09, [0, 0, 0.2, 0.7, 1]),
        # the most similar patch always stays
        ("sum_normalised", 0.6, [0, 0, 0, 0, 1]),
    ],
)
def test_by_hand(rule, threshold, expected):
    expected_P = torch.tensor(expected)
    torch.testing.assert_close(weights(rule, threshold), expected_P / expected_P.sum(), atol=1e-6, rtol=0)


def test_softmax_is_of_the_plain_inner_products():
    torch.testing.assert_close(weights("softmax"), torch.tensor([3.0, 4, 5, 10, 13]).softmax(0))


def test_sparse_is_the_default():
    torch.testing.assert_close(weights("sparse", 0.5), alignment_weights(PATCHES, TOKEN, 0.5)[0, 0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("patches", [7, 49])
def test_equal_similarities_weigh_patches_equally_with_finite_gradients(rule, patches):
    patches_BPD = torch.ones(2, patches, 3, requires_grad=True)
    tokens_BLD = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    weights_BLP = alignment_weights(patches_BPD, tokens_BLD, weights=rule)
    torch.testing.assert_close(weights_BLP, torch.full((2, 4, patches), 1 / patches))
    fine_grained_loss(patches_BPD, tokens_BLD, torch.ones(2, 4, dtype=torch.bool), 14.0, weights=rule).backward()
    assert torch.isfinite(patches_BPD.grad).all()


def test_the_prose_removes_far_more_than_the_formula():
    draw = torch.Generator().manual_seed(1)
    patches_BPD, tokens_BLD = torch.randn(4, 196, 16, generator=draw), torch.randn(4, 20, 16, generator=draw)
    zeroed = {
        rule: float((alignment_weights(patches_BPD, tokens_BLD, None, rule) == 0).float().mean()) for rule in RULES
    }
    # dense: the least similar patch of each token alone has weight 0
    assert zeroed["dense"] == pytest.approx(1 / 196)
    assert zeroed["softmax"] == 0
    assert zeroed["sparse"] < 0.02
    assert 0.4 < zeroed["sum_normalised"] < 0.6


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one_in_float32_under_autocast(rule):
    draw = torch.Generator().manual_seed(2)
    patches_BPD, tokens_BLD = torch.randn(2, 9, 8, generator=draw).bfloat16(), torch.randn(2, 5, 8, generator=draw)
    with torch.autocast("cpu", torch.bfloat16):
        weights_BLP = alignment_weights(patches_BPD, tokens_BLD, weights=rule)
    assert weights_BLP.dtype == torch.float32
    torch.testing.assert_close(weights_BLP.sum(-1), torch.ones(2, 5))
    assert (weights_BLP >= 0).all()


def test_the_option_reaches_the_loss():
    draw = torch.Generator().manual_seed(3)
    patches_BPW, tokens_BKLW = torch.randn(4, 16, 6, generator=draw), torch.randn(4, 1, 5, 6, generator=draw)
    words_BKL = torch.ones(4, 1, 5, dtype=torch.bool)
    image = ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (4, 4))
    text = TextOut(tokens_BKLW, tokens_BKLW.mean(2), words_BKL, ~words_BKL)
    losses = set()
    for rule in RULES:
        torch.manual_seed(0)
        objective = Objective(6, 6, SparcOptions(dim=8, weights=rule))
        figures = objective(image, text, Ctx())
        expected = fine_grained_loss(
            objective.g_v(patches_BPW), objective.g_t(tokens_BKLW[:, 0]), words_BKL[:, 0], objective.scale, weights=rule
        )
        torch.testing.assert_close(figures["fine_loss"], expected.detach())
        losses.add(round(float(figures["fine_loss"]), 5))
    assert len(losses) == len(RULES)


@pytest.mark.parametrize("rule", ["dense", "softmax"])
def test_a_threshold_without_use_is_refused(rule):
    with pytest.raises(UserError, match=f"weights = '{rule}' have no threshold: leave one of the two out"):
        parse(SparcOptions, {"weights": rule, "threshold": 0.1}, "test")
    parse(SparcOptions, {"weights": "sum_normalised", "threshold": 0.1}, "test")
