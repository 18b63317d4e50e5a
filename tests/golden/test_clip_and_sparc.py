"""The pure functions against values that were computed elsewhere, in float64 (objectives.npz: in_* and out_*)."""

import pytest
import torch

from sparc_bench.objectives.clip import contrastive_loss
from sparc_bench.objectives.sparc import alignment_weights, fine_grained_loss


def test_clip_loss(golden):
    loss = contrastive_loss(golden["in_image"], golden["in_text"], golden["in_scale"])
    torch.testing.assert_close(loss, golden["out_clip_loss"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "threshold"), [("default", None), ("half", 0.5)])
def test_sparc_weights_and_grouping(golden, name, threshold):
    weights_BLP = alignment_weights(golden["in_patches"], golden["in_tokens"], threshold)
    torch.testing.assert_close(weights_BLP, golden[f"out_sparc_weights_{name}"], atol=1e-6, rtol=0)
    grouped_BLD = weights_BLP @ golden["in_patches"]
    torch.testing.assert_close(grouped_BLD, golden[f"out_sparc_grouped_{name}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "threshold"), [("default", None), ("half", 0.5)])
@pytest.mark.parametrize("reduction", ["caption", "token"])
def test_sparc_fine_loss(golden, name, threshold, reduction):
    loss = fine_grained_loss(
        golden["in_patches"], golden["in_tokens"], golden["in_mask"], golden["in_scale"], threshold, reduction
    )
    torch.testing.assert_close(loss, golden[f"out_sparc_fine_loss_per_{reduction}_{name}"], atol=1e-6, rtol=0)
