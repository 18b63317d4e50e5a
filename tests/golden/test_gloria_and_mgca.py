"""GLoRIA's and MGCA's pure functions against values that were computed elsewhere, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.objectives.clip import cross_entropy_both_ways
from sparc_bench.objectives.gloria import attention_similarity
from sparc_bench.objectives.mgca import patch_alignment_loss, prototype_loss, sinkhorn, word_alignment_loss


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("text_chunk", [None, 2])
@pytest.mark.parametrize(("name", "divisor"), [("paper", 1.0), ("sqrt_d", math.sqrt(6))])
def test_gloria_score_and_loss(golden, name, divisor, text_chunk):
    scores_NM = attention_similarity(
        golden["in_patches"], golden["in_tokens"], golden["in_mask"], divisor=divisor, text_chunk=text_chunk
    )
    close(scores_NM, golden[f"out_gloria_local_{name}"])
    # the expected loss is the sum of both directions, ours their mean
    close(2 * cross_entropy_both_ways(10 * scores_NM, 10 * scores_NM.T), golden[f"out_gloria_local_loss_{name}"])


def test_mgca_token_losses(golden):
    patches_BPD, tokens_BLD = (F.normalize(golden[name], dim=-1) for name in ("in_patches", "in_tokens"))
    close(word_alignment_loss(patches_BPD, tokens_BLD, golden["in_mask"]), golden["out_mgca_word_loss"])
    close(patch_alignment_loss(patches_BPD, tokens_BLD, golden["in_mask"]), golden["out_mgca_patch_loss"])


def test_mgca_assignment_and_prototype_loss(golden):
    image_BD, text_BD, prototypes_CD = golden["in_image"], golden["in_text"], golden["in_prototypes"]
    close(sinkhorn(image_BD @ prototypes_CD.T), golden["out_mgca_sinkhorn_image"])
    close(prototype_loss(image_BD, text_BD, prototypes_CD), golden["out_mgca_prototype_loss"])
    # prototypes of any length are normalised inside
    close(prototype_loss(image_BD, text_BD, 3 * prototypes_CD), golden["out_mgca_prototype_loss"])
