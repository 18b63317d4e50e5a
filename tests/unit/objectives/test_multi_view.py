"""The multi-view losses by plain loops, far out of the range of exp, with left-out pairs; the objectives' views."""

import math

import pytest
import torch

from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives import mv_dhel, mv_infonce
from sparc_bench.objectives.mv_dhel import multi_view_dhel_loss
from sparc_bench.objectives.mv_infonce import multi_view_infonce_loss

V, N = 3, 4


def views(count=V, things=N, seed=0):
    draw = torch.Generator().manual_seed(seed)
    views_VND = torch.randn(count, things, 5, generator=draw, dtype=torch.float64)
    return torch.nn.functional.normalize(views_VND, dim=-1)


def infonce_by_loops(z, temperature, left_out=()):
    total = 0.0
    for i in range(z.shape[1]):
        above = below = 0.0
        for a in range(len(z)):
            for b in range(len(z)):
                for j in range(z.shape[1]):
                    if (a, i) == (b, j) or ((a, i), (b, j)) in left_out:
                        continue
                    value = math.exp(float(z[a, i] @ z[b, j]) / temperature)
                    below += value
                    above += value if i == j else 0.0
        total -= math.log(above / below) / z.shape[1]
    return total


def dhel_by_loops(z, temperature):
    total = 0.0
    for i in range(z.shape[1]):
        pairs = [(a, b) for a in range(len(z)) for b in range(a + 1, len(z))]
        above = sum(math.exp(float(z[a, i] @ z[b, i]) / temperature) for a, b in pairs)
        below = [
            sum(math.exp(float(z[a, i] @ z[a, j]) / temperature) for j in range(z.shape[1]) if j != i)
            for a in range(len(z))
        ]
        total -= (math.log(above) - sum(map(math.log, below))) / z.shape[1]
    return total


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_by_loops(count, temperature):
    z = views(count)
    assert float(multi_view_infonce_loss(z, temperature)) == pytest.approx(infonce_by_loops(z, temperature), rel=1e-9)
    assert float(multi_view_dhel_loss(z, temperature)) == pytest.approx(dhel_by_loops(z, temperature), rel=1e-9)


def test_length_of_the_vectors_and_order_of_things_change_nothing():
    z = views()
    order = torch.tensor([2, 0, 3, 1])
    for loss in (multi_view_infonce_loss, multi_view_dhel_loss):
        torch.testing.assert_close(loss(3 * z[:, order], 0.2), loss(z, 0.2))


def test_a_tiny_temperature_overflows_nothing():
    z = views().float().requires_grad_()
    for loss in (multi_view_infonce_loss, multi_view_dhel_loss):
        value = loss(z, 0.001)
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


def test_known_true_pairs_of_image_and_caption_are_left_out_both_ways():
    z = views()
    known_NNK = torch.zeros(N, N, V - 1, dtype=torch.bool)
    known_NNK[0, 2, 1] = known_NNK[3, 1, 0] = True
    # image 0 and the second caption of 2; image 3 and the first caption of 1
    pairs = {((0, 0), (2, 2)), ((0, 3), (1, 1))}
    expected = infonce_by_loops(z, 0.5, pairs | {(b, a) for a, b in pairs})
    loss = multi_view_infonce_loss(z, 0.5, known_NNK)
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    assert loss < multi_view_infonce_loss(z, 0.5)


@pytest.mark.parametrize("module", [mv_infonce, mv_dhel])
def test_half_precision_is_computed_in_float32(module):
    z = views().bfloat16()
    loss = module.multi_view_infonce_loss if module is mv_infonce else module.multi_view_dhel_loss
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(z, 0.1)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(z.float(), 0.1))


def towers(captions):
    draw = torch.Generator().manual_seed(3)
    patches_BPW = torch.randn(N, 4, 6, generator=draw)
    tokens_BKLW = torch.randn(N, captions, 3, 6, generator=draw)
    words_BKL = torch.ones(N, captions, 3, dtype=torch.bool)
    image = ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (2, 2))
    return image, TextOut(tokens_BKLW, tokens_BKLW.mean(2), words_BKL, ~words_BKL)


@pytest.mark.parametrize("module", [mv_infonce, mv_dhel])
@pytest.mark.parametrize("captions", [1, 3])
def test_views_are_the_image_and_its_captions(module, captions):
    objective = module.Objective(6, 6, module.Objective.Options(dim=8, captions=captions, temperature=0.25))
    assert objective.captions_per_image == captions
    image, text = towers(captions)
    with torch.no_grad():
        z = torch.stack([objective.global_image(image), *objective.global_text(text).unbind(1)])
        by_loops = infonce_by_loops if module is mv_infonce else dhel_by_loops
        expected = by_loops(torch.nn.functional.normalize(z, dim=-1).double(), 0.25)
    assert float(objective(image, text, Ctx())["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def test_the_objective_leaves_known_true_pairs_out():
    objective = mv_infonce.Objective(6, 6, mv_infonce.Objective.Options(dim=8))
    known_NNK = torch.zeros(N, N, 2, dtype=torch.bool)
    known_NNK[1, 0, 1] = True
    image, text = towers(2)
    loss, masked = (objective(image, text, Ctx(extra=extra))["loss"] for extra in ({}, {"known_true": known_NNK}))
    assert masked < loss


@pytest.mark.parametrize("module", [mv_infonce, mv_dhel])
def test_the_temperature_is_fixed(module):
    objective = module.Objective(6, 6, module.Objective.Options(dim=8, temperature=0.2))
    assert not [name for name, _ in objective.named_parameters() if "scale" in name]
    objective.after_step(0)
    assert float(objective.scale) == pytest.approx(5)
    with pytest.raises(UserError, match=r"max_scale bounds a learned temperature .* leave it out"):
        parse(module.Objective.Options, {"max_scale": 50.0}, "test")
