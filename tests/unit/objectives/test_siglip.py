"""SigLIP's loss by hand."""

import math

import pytest
import torch

from sparc_bench.objective import Ctx
from sparc_bench.objectives.siglip import Objective, SiglipOptions, pair_losses, sigmoid_loss


def test_a_loss_worked_by_hand():
    image_BD = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    text_BD = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # cosines: [[1, 1], [0, 0]]
    loss = sigmoid_loss(image_BD, text_BD, 2.0, -1.0)

    def nll(logit):
        return math.log1p(math.exp(-logit))

    expected = ((nll(1.0) + nll(-1.0)) + (nll(1.0) + nll(-1.0))) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_twice_as_many_negatives_cost_twice_as_much():
    """The sum runs over texts, the mean over images only."""
    image_BD = torch.ones(8, 1)
    losses = [float(sigmoid_loss(image_BD[:n], image_BD[:n], 1.0, 0.0)) for n in (4, 8)]
    positive, negative = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert losses == pytest.approx([positive + 3 * negative, positive + 7 * negative])


def test_known_true_pairs_are_left_out():
    draw = torch.Generator().manual_seed(0)
    image_BD, text_BD = torch.randn(4, 6, generator=draw), torch.randn(4, 6, generator=draw)
    known_NN = torch.zeros(4, 4, dtype=torch.bool)
    known_NN[0, 1] = known_NN[3, 0] = True
    logits = 5 * torch.cosine_similarity(image_BD[:, None], text_BD[None], dim=-1) - 2
    each = pair_losses(logits, torch.eye(4, dtype=torch.bool))
    expected = (each.sum() - each[0, 1] - each[3, 0]) / 4
    torch.testing.assert_close(sigmoid_loss(image_BD, text_BD, 5.0, -2.0, known_NN), expected)


def test_logits_are_scaled_cosines_without_the_bias():
    draw = torch.Generator().manual_seed(0)
    image_BD, text_BD = torch.randn(3, 6, generator=draw), torch.randn(3, 6, generator=draw)
    ctx = Ctx()
    sigmoid_loss(image_BD, text_BD, 5.0, -10.0, ctx=ctx)
    cosines = torch.cosine_similarity(image_BD[:, None], text_BD[None], dim=-1)
    torch.testing.assert_close(ctx.logits["global"][0], 5 * cosines)
    torch.testing.assert_close(ctx.logits["global"][1], 5 * cosines.T)


def test_temperature_and_bias_start_as_published():
    objective = Objective(6, 5, SiglipOptions(dim=4))
    assert float(objective.scale.detach()) == pytest.approx(10.0)
    assert float(objective.bias.detach()) == -10.0
