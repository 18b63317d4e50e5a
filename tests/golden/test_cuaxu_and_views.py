"""CUAXU's terms and the multi-view losses against values that were computed elsewhere, in float64."""

import torch

from sparc_bench.objectives.cuaxu import alignment_loss, cross_uniformity_loss, uniformity_loss
from sparc_bench.objectives.mv_dhel import multi_view_dhel_loss
from sparc_bench.objectives.mv_infonce import multi_view_infonce_loss


def close(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=0)


def test_uniformity_is_the_mean_of_both_modalities(golden):
    close((uniformity_loss(golden["in_image"]) + uniformity_loss(golden["in_text"])) / 2, golden["out_uniformity_loss"])


def test_alignment_loss(golden):
    close(alignment_loss(golden["in_image"], golden["in_text"]), golden["out_alignment_loss"])


def test_cross_uniformity_loss(golden):
    close(cross_uniformity_loss(golden["in_image"], golden["in_text"]), golden["out_cross_uniformity_loss"])


def test_multi_view_infonce_loss(golden):
    close(multi_view_infonce_loss(golden["in_views"], 0.5), golden["out_mv_infonce_loss"])


def test_multi_view_dhel_loss(golden):
    close(multi_view_dhel_loss(golden["in_views"], 0.5), golden["out_mv_dhel_loss"])
