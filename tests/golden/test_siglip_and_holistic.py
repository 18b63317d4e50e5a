"""SigLIP's and Holistic CLIP's functions against values that were computed elsewhere, in float64."""

import torch

from sparc_bench.objectives.holistic import branch_contrastive_loss, branch_diversity_loss
from sparc_bench.objectives.siglip import sigmoid_loss


def test_sigmoid_loss(golden):
    loss = sigmoid_loss(golden["in_image"], golden["in_text"], golden["in_scale"], golden["in_bias"])
    torch.testing.assert_close(loss, golden["out_siglip_loss"], atol=1e-6, rtol=0)


def test_branch_contrastive_loss(golden):
    loss = branch_contrastive_loss(golden["in_branches"], golden["in_captions"], golden["in_scale"])
    torch.testing.assert_close(loss, golden["out_holistic_m2m_loss"], atol=1e-6, rtol=0)


def test_branch_diversity_loss(golden):
    loss = branch_diversity_loss(golden["in_branches"])
    torch.testing.assert_close(loss, golden["out_holistic_diversity_loss"], atol=1e-6, rtol=0)
