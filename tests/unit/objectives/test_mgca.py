"""MGCA's parts: masking, means, Sinkhorn's sums, stop-gradient, weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.mgca import (
    MgcaOptions,
    Objective,
    patch_alignment_loss,
    prototype_loss,
    sinkhorn,
    word_alignment_loss,
)

TOKEN_LOSSES = pytest.mark.parametrize("loss", [word_alignment_loss, patch_alignment_loss])


def pairs(words=(5, 3, 1), context=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.arange(context) < torch.tensor(words)[:, None]
    patches_BPD = F.normalize(torch.randn(len(words), 8, 6, generator=draw), dim=-1)
    return patches_BPD, F.normalize(torch.randn(len(words), context, 6, generator=draw), dim=-1), mask_BL


def outputs():
    draw = torch.Generator().manual_seed(2)
    patches_BPW, tokens_BKLW = torch.randn(5, 9, 10, generator=draw), torch.randn(5, 1, 7, 8, generator=draw)
    mask_BKL = (torch.arange(7) < torch.tensor([5, 3, 4, 2, 7])[:, None])[:, None]
    return (
        ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (3, 3)),
        TextOut(tokens_BKLW, tokens_BKLW.mean(2), mask_BKL, ~mask_BKL),
    )


def make(**options):
    torch.manual_seed(0)
    return Objective(10, 8, MgcaOptions(dim=6, prototypes=11, **options))


def test_a_word_that_finds_its_patch_loses_nothing_and_one_that_does_not_loses_log_of_its_rivals():
    """Two words along two axes; a cold softmax picks the patch that equals each."""
    tokens_BLD = torch.eye(3)[None, :2]
    mask_BL = torch.ones(1, 2, dtype=torch.bool)
    assert float(word_alignment_loss(tokens_BLD, tokens_BLD, mask_BL, 0.01)) == pytest.approx(0, abs=1e-6)
    assert float(patch_alignment_loss(tokens_BLD, tokens_BLD, mask_BL, 0.01)) == pytest.approx(0, abs=1e-6)
    blank_BPD = torch.eye(3)[None, 2:].expand(1, 4, 3)  # orthogonal to both words: nothing tells them apart
    assert float(word_alignment_loss(blank_BPD, tokens_BLD, mask_BL)) == pytest.approx(math.log(2))
    assert float(patch_alignment_loss(blank_BPD, tokens_BLD, mask_BL)) == pytest.approx(math.log(4))


@TOKEN_LOSSES
def test_the_mean_is_over_captions_and_one_without_words_does_not_count(loss):
    patches_BPD, tokens_BLD, mask_BL = pairs(words=(5, 0, 2))
    each = [loss(patches_BPD[i : i + 1], tokens_BLD[i : i + 1], mask_BL[i : i + 1]) for i in (0, 2)]
    torch.testing.assert_close(loss(patches_BPD, tokens_BLD, mask_BL), (each[0] + each[1]) / 2)
    assert float(loss(patches_BPD, tokens_BLD, torch.zeros_like(mask_BL))) == 0


@TOKEN_LOSSES
@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan"), float("inf")])
def test_padding_of_any_content_and_length_changes_nothing(loss, filling):
    patches_BPD, tokens_BLD, mask_BL = pairs()
    short = loss(patches_BPD, tokens_BLD[:, :5], mask_BL[:, :5])
    filled_BLD = tokens_BLD.masked_fill(~mask_BL.unsqueeze(-1), filling).requires_grad_()
    patches_BPD.requires_grad_()
    long = loss(patches_BPD, filled_BLD, mask_BL)
    long.backward()
    torch.testing.assert_close(long, short)
    assert torch.isfinite(patches_BPD.grad).all()
    assert (filled_BLD.grad[~mask_BL] == 0).all()


@TOKEN_LOSSES
def test_float32_under_autocast(loss):
    patches_BPD, tokens_BLD, mask_BL = pairs()
    patches_BPD, tokens_BLD = patches_BPD.bfloat16(), tokens_BLD.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(patches_BPD, tokens_BLD, mask_BL)
    torch.testing.assert_close(value, loss(patches_BPD.float(), tokens_BLD.float(), mask_BL))


def test_sinkhorn_rows_sum_to_one_and_columns_are_nearly_equal():
    scores_NC = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    assigned_NC = sinkhorn(scores_NC)
    torch.testing.assert_close(assigned_NC.sum(1), torch.ones(40))
    # without it the fullest prototype has far more than its share of 5 rows
    assert float((scores_NC / 0.05).softmax(1).sum(0).max()) > 6
    torch.testing.assert_close(assigned_NC.sum(0), torch.full((8,), 5.0), atol=0.5, rtol=0)
    torch.testing.assert_close(sinkhorn(scores_NC, iterations=100).sum(0), torch.full((8,), 5.0))


def test_sinkhorn_one_iteration_by_hand():
    scores_NC = torch.tensor([[2.0, 1.0], [1.0, 1.0]]).log()
    # columns: 2/3, 1/2 over 1/3, 1/2; then rows
    expected = torch.tensor([[4 / 7, 3 / 7], [2 / 5, 3 / 5]])
    torch.testing.assert_close(sinkhorn(scores_NC, epsilon=1.0, iterations=1), expected)


def test_sinkhorn_of_one_row_is_even_and_of_extreme_scores_finite():
    torch.testing.assert_close(sinkhorn(torch.randn(1, 5)), torch.full((1, 5), 0.2))
    extreme_NC = sinkhorn(torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]]), epsilon=1e-3)
    assert torch.isfinite(extreme_NC).all()
    torch.testing.assert_close(extreme_NC.sum(1), torch.ones(2))
    assert not sinkhorn(torch.zeros(2, 3, requires_grad=True)).requires_grad


def test_the_assignment_carries_no_gradient():
    """The gradient of the image is that of predicting a fixed assignment of the text."""
    draw = torch.Generator().manual_seed(0)
    image_BD, text_BD, prototypes_CD = (
        F.normalize(torch.randn(count, 6, generator=draw), dim=-1) for count in (5, 5, 7)
    )
    image_BD.requires_grad_()
    prototype_loss(image_BD, text_BD, prototypes_CD).backward()
    (expected,) = torch.autograd.grad(
        -(sinkhorn(text_BD @ prototypes_CD.T) * (image_BD @ prototypes_CD.T / 0.2).log_softmax(1)).sum() / 10, image_BD
    )
    torch.testing.assert_close(image_BD.grad, expected)


def test_two_forwards_before_one_backward():
    """The prototypes are normalised without being changed."""
    objective = make()
    before_CD = objective.prototypes_CD.detach().clone()
    losses = [objective(*outputs(), Ctx())["loss"] for _ in range(2)]
    (losses[0] + losses[1]).backward()
    torch.testing.assert_close(objective.prototypes_CD.detach(), before_CD, atol=0, rtol=0)
    assert objective.prototypes_CD.grad.any()


def test_zero_vectors_are_finite():
    objective = make()
    image, text = outputs()
    zero_image = ImageOut(image.patches_BPW * 0, image.pooled_BMW * 0, image.grid)
    zero_text = TextOut(text.tokens_BKLW * 0, text.pooled_BKW * 0, text.mask_BKL, text.special_BKL)
    figures = objective(zero_image, zero_text, Ctx())
    figures["loss"].backward()
    assert all(torch.isfinite(value) for value in figures.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in objective.parameters())


def test_the_loss_is_the_weighted_sum_of_its_parts():
    figures = make(instance_weight=0.5, token_weight=2.0, prototype_weight=3.0)(*outputs(), Ctx())
    parts = {name: float(value.detach()) for name, value in figures.items()}
    expected = 0.5 * parts["global_loss"] + 2 * (parts["word_loss"] + parts["patch_loss"]) + 3 * parts["prototype_loss"]
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ({"local_temperature": 0.5}, {"word_loss", "patch_loss"}),
        ({"prototype_temperature": 0.5}, {"prototype_loss"}),
        ({"epsilon": 0.5}, {"prototype_loss"}),
        ({"iterations": 1}, {"prototype_loss"}),
    ],
)
def test_each_option_reaches_its_own_loss(option, changed):
    plain, other = make()(*outputs(), Ctx()), make(**option)(*outputs(), Ctx())
    assert {name for name in plain if not torch.equal(plain[name], other[name])} == {*changed, "loss"}
