"""CUAXU's terms by hand, left-out pairs, half precision, and how the weights enter."""

import math

import pytest
import torch

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.cuaxu import CuaxuOptions, Objective, alignment_loss, cross_uniformity_loss, uniformity_loss

RIGHT, UP = torch.eye(2, dtype=torch.float64)
LEFT = -RIGHT


def test_by_hand():
    # squared distances: right to up 2, right to left 4; lengths do not matter
    x_ND = torch.stack([RIGHT, UP, LEFT]) * torch.tensor([[1.0], [2.0], [5.0]])
    potentials = 3 + 4 * math.exp(-4) + 2 * math.exp(-8)
    assert float(uniformity_loss(x_ND)) == pytest.approx(math.log(potentials / 3), rel=1e-6)
    text_ND = torch.stack([UP, UP, LEFT])
    assert float(alignment_loss(x_ND, text_ND)) == pytest.approx(2 / 3, rel=1e-6)
    # off the diagonal: right-up 2, right-left 4, up-up 0, up-left 2, left-up 2, left-up 2
    crossed = math.exp(-8) + 1 + 4 * math.exp(-4)
    assert float(cross_uniformity_loss(x_ND, text_ND)) == pytest.approx(math.log(crossed / 3), rel=1e-6)


def test_distinct_pairs_are_the_authors_pdist():
    x_ND = torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mine, theirs = x_ND.clone().requires_grad_(), x_ND.clone().requires_grad_()
    expected = torch.pdist(torch.nn.functional.normalize(theirs, dim=-1)).pow(2).mul(-2).exp().mean().log()
    value = uniformity_loss(mine, "distinct")
    torch.testing.assert_close(value, expected)
    for each in (value, expected):
        each.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    with_itself = x_ND.clone().requires_grad_()
    uniformity_loss(with_itself, "all").backward()
    assert with_itself.grad.norm() < 0.7 * theirs.grad.norm()
    assert CuaxuOptions().uniformity_pairs == "distinct"


def test_a_single_vector_has_no_distinct_pair():
    x_ND = torch.ones(1, 4, requires_grad=True)
    loss = uniformity_loss(x_ND, "distinct")
    loss.backward()
    assert loss == 0
    assert torch.isfinite(x_ND.grad).all()


def test_known_true_pairs_repel_each_other_not():
    image_ND, text_ND = torch.stack([RIGHT, UP, LEFT]), torch.stack([UP, UP, LEFT])
    known_NN = torch.zeros(3, 3, dtype=torch.bool)
    known_NN[1, 0] = True
    expected = math.log((math.exp(-8) + 4 * math.exp(-4)) / 3)
    assert float(cross_uniformity_loss(image_ND, text_ND, known_NN)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_without_any_pair_left_it_is_zero_with_a_finite_gradient(count):
    image_ND = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    known_NN = ~torch.eye(count, dtype=torch.bool)
    loss = cross_uniformity_loss(image_ND, image_ND.detach().roll(1, 1), known_NN)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(image_ND.grad).all()


def test_half_precision_is_computed_in_float32():
    x_ND = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    near_ND = x_ND + 0.01
    with torch.autocast("cpu", torch.bfloat16):
        values = [uniformity_loss(x_ND), alignment_loss(x_ND, near_ND), cross_uniformity_loss(x_ND, near_ND)]
    exact = [
        uniformity_loss(x_ND.double()),
        alignment_loss(x_ND.double(), near_ND.double()),
        cross_uniformity_loss(x_ND.double(), near_ND.double()),
    ]
    for value, expected in zip(values, exact, strict=True):
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(expected), rel=1e-3)


def test_weights():
    draw = torch.Generator().manual_seed(2)
    patches_BPW, tokens_BKLW = torch.randn(5, 4, 6, generator=draw), torch.randn(5, 1, 3, 6, generator=draw)
    words_BKL = torch.ones(5, 1, 3, dtype=torch.bool)
    image = ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (2, 2))
    text = TextOut(tokens_BKLW, tokens_BKLW.mean(2), words_BKL, ~words_BKL)

    def figures(**weights):
        torch.manual_seed(0)
        return Objective(6, 6, CuaxuOptions(dim=8, **weights))(image, text, Ctx())

    all_one = figures()
    terms = ("global_loss", "alignment_loss", "uniformity_loss", "cross_uniformity_loss")
    torch.testing.assert_close(all_one["loss"], sum(all_one[term] for term in terms))
    weighted = figures(alignment_weight=0.0, uniformity_weight=2.0, cross_uniformity_weight=0.5)
    expected = all_one["global_loss"] + 2 * all_one["uniformity_loss"] + 0.5 * all_one["cross_uniformity_loss"]
    torch.testing.assert_close(weighted["loss"], expected)
    assert figures(uniformity_pairs="all")["uniformity_loss"] != all_one["uniformity_loss"]
