"""FILIP's and PACL's functions against values that were computed elsewhere, in float64 (objectives.npz)."""

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.objectives.filip import token_max_loss, token_max_similarity
from sparc_bench.objectives.pacl import patch_pooled_loss, patch_pooled_similarity

CHUNKS = pytest.mark.parametrize("chunk", [None, 1, 2, 8])


def close(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=0)


def unit(vectors):
    return F.normalize(vectors, dim=-1)


@CHUNKS
def test_filip_scores(golden, chunk):
    i2t_NM, t2i_NM = token_max_similarity(
        unit(golden["in_patches"]), unit(golden["in_tokens"]), golden["in_mask"], chunk
    )
    close(i2t_NM, golden["out_filip_i2t"])
    close(t2i_NM, golden["out_filip_t2i"])


@CHUNKS
def test_filip_loss(golden, chunk):
    loss = token_max_loss(
        golden["in_patches"], golden["in_tokens"], golden["in_mask"], golden["in_scale"], text_chunk=chunk
    )
    close(loss, golden["out_filip_loss"])


@CHUNKS
def test_pacl_score(golden, chunk):
    sim_NM = patch_pooled_similarity(unit(golden["in_patches"]), unit(golden["in_text"]), chunk)
    close(sim_NM, golden["out_pacl_score"])


@CHUNKS
def test_pacl_loss(golden, chunk):
    loss = patch_pooled_loss(golden["in_patches"], golden["in_text"], golden["in_scale"], chunk)
    close(loss, golden["out_pacl_loss"])
