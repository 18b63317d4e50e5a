"""Edges of the losses: constant rows, padding, autocast, known-true pairs."""

import pytest
import torch

from sparc_bench.objectives.clip import contrastive_loss
from sparc_bench.objectives.sparc import alignment_weights, fine_grained_loss


def pairs(batch=3, patches=8, tokens=5, dim=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.arange(tokens) < torch.tensor([[5], [3], [1]])[:batch]
    return (
        torch.randn(batch, patches, dim, generator=draw),
        torch.randn(batch, tokens, dim, generator=draw),
        mask_BL,
    )


def test_constant_similarities_weigh_patches_equally_and_stay_finite():
    _, tokens_BLD, mask_BL = pairs()
    patches_BPD = torch.ones(3, 8, 6, requires_grad=True)
    weights_BLP = alignment_weights(patches_BPD, tokens_BLD)
    torch.testing.assert_close(weights_BLP, torch.full((3, 5, 8), 1 / 8))
    loss = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(patches_BPD.grad).all()


def test_zero_vectors_give_a_finite_loss_and_gradient():
    patches_BPD, tokens_BLD = torch.zeros(2, 4, 6, requires_grad=True), torch.zeros(2, 5, 6, requires_grad=True)
    loss = fine_grained_loss(patches_BPD, tokens_BLD, torch.ones(2, 5, dtype=torch.bool), 14.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(patches_BPD.grad).all()
    assert torch.isfinite(tokens_BLD.grad).all()


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("reduction", ["caption", "token"])
def test_padding_of_any_content_changes_nothing(filling, reduction):
    patches_BPD, tokens_BLD, mask_BL = pairs()
    plain = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0, reduction=reduction)
    filled_BLD = tokens_BLD.masked_fill(~mask_BL.unsqueeze(-1), filling).requires_grad_()
    patches_BPD.requires_grad_()
    loss = fine_grained_loss(patches_BPD, filled_BLD, mask_BL, 14.0, reduction=reduction)
    loss.backward()
    torch.testing.assert_close(loss.detach(), plain)
    assert torch.isfinite(patches_BPD.grad).all()
    assert (filled_BLD.grad[~mask_BL] == 0).all()


def test_more_padding_changes_nothing():
    patches_BPD, tokens_BLD, mask_BL = pairs()
    padded_BLD = torch.cat([tokens_BLD, torch.randn(3, 4, 6)], 1)
    padded_BL = torch.cat([mask_BL, torch.zeros(3, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(
        fine_grained_loss(patches_BPD, padded_BLD, padded_BL, 14.0),
        fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0),
    )


def test_min_max_runs_in_float32_under_autocast():
    patches_BPD, tokens_BLD, mask_BL = pairs()
    patches_BPD, tokens_BLD = patches_BPD.bfloat16(), tokens_BLD.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        weights_BLP = alignment_weights(patches_BPD, tokens_BLD)
        loss = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0)
    assert weights_BLP.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(weights_BLP, alignment_weights(patches_BPD.float(), tokens_BLD.float()))


def test_threshold_zeroes_and_weights_sum_to_one():
    patches_BPD, tokens_BLD, _ = pairs()
    for threshold, most in ((None, 8), (0.5, 7), (1.0, 1)):
        weights_BLP = alignment_weights(patches_BPD, tokens_BLD, threshold)
        torch.testing.assert_close(weights_BLP.sum(-1), torch.ones(3, 5))
        assert ((weights_BLP > 0).sum(-1) <= most).all()
    # with the threshold at 1 only the most similar patch is left
    similarity_BLP = torch.einsum("bld,bpd->blp", tokens_BLD, patches_BPD)
    torch.testing.assert_close(weights_BLP.argmax(-1), similarity_BLP.argmax(-1))


def test_captions_of_one_word_cost_nothing_and_token_mean_weighs_long_captions():
    patches_BPD, tokens_BLD, mask_BL = pairs()
    one = fine_grained_loss(patches_BPD[2:], tokens_BLD[2:], mask_BL[2:], 14.0)
    assert abs(float(one)) < 1e-5
    first, second = (
        float(fine_grained_loss(patches_BPD[i : i + 1], tokens_BLD[i : i + 1], mask_BL[i : i + 1], 14.0))
        for i in (0, 1)
    )
    caption = float(fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0))
    token = float(fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0, reduction="token"))
    assert caption == pytest.approx((first + second) / 3, rel=1e-5)
    assert token == pytest.approx((5 * first + 3 * second) / 9, rel=1e-5)


def test_known_true_pairs_are_no_negatives():
    draw = torch.Generator().manual_seed(1)
    image_BD, text_BD = torch.randn(4, 8, generator=draw), torch.randn(4, 8, generator=draw)
    known_BB = torch.zeros(4, 4, dtype=torch.bool)
    known_BB[0, 1] = True
    unit_image, unit_text = (torch.nn.functional.normalize(x, dim=-1) for x in (image_BD, text_BD))
    scores = 10 * unit_image @ unit_text.T
    rows = torch.stack([scores[0, [0, 2, 3]].logsumexp(0), *scores[1:].logsumexp(1)])
    columns = torch.stack([scores[:, 0].logsumexp(0), scores[[1, 2, 3], 1].logsumexp(0), *scores[:, 2:].logsumexp(0)])
    expected = ((rows + columns) / 2 - scores.diagonal()).mean()
    torch.testing.assert_close(contrastive_loss(image_BD, text_BD, 10.0, known_BB), expected)


def test_order_of_pairs_does_not_matter():
    patches_BPD, tokens_BLD, mask_BL = pairs()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        fine_grained_loss(patches_BPD[order], tokens_BLD[order], mask_BL[order], 14.0),
        fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 14.0),
    )
