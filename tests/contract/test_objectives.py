"""Every loss in the folder: finite, gradients everywhere, blind to padding and order, prefers matched pairs."""

import pytest
import torch

from sparc_bench import discover
from sparc_bench.objective import Ctx, ImageOut, TextOut

B, P, L, WI, WT = 6, 9, 7, 10, 8


def outputs(seed=0, dtype=torch.float32, scale=1.0, extra_padding=0):
    draw = torch.Generator().manual_seed(seed)
    patches_BPW = scale * torch.randn(B, P, WI, generator=draw)
    tokens_BKLW = scale * torch.randn(B, 1, L, WT, generator=draw)
    words = torch.tensor([5, 3, 4, 2, 5, 1])[:, None, None]
    place = torch.arange(L)[None, None]
    mask_BKL = (place >= 1) & (place <= words)
    special_BKL = (place == 0) | (place == words + 1)
    pooled_BKW = (tokens_BKLW * mask_BKL[..., None]).sum(2) / words
    if extra_padding:
        tokens_BKLW = torch.cat([tokens_BKLW, torch.full((B, 1, extra_padding, WT), 7.0)], 2)
        more = torch.zeros(B, 1, extra_padding, dtype=torch.bool)
        mask_BKL, special_BKL = torch.cat([mask_BKL, more], 2), torch.cat([special_BKL, more], 2)
    image = ImageOut(patches_BPW.to(dtype), patches_BPW.mean(1, keepdim=True).to(dtype), (3, 3))
    return image, TextOut(tokens_BKLW.to(dtype), pooled_BKW.to(dtype), mask_BKL, special_BKL)


def make(name, seed=0):
    module = discover.load("objectives", name)
    torch.manual_seed(seed)
    return module.Objective(WI, WT, module.Objective.Options())


def permuted(image, text, image_order, text_order):
    return (
        ImageOut(image.patches_BPW[image_order], image.pooled_BMW[image_order], image.grid),
        TextOut(
            *(getattr(text, field)[text_order] for field in ("tokens_BKLW", "pooled_BKW", "mask_BKL", "special_BKL"))
        ),
    )


@pytest.fixture(params=discover.names("objectives"))
def name(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["random", "zero"])
def test_finite_loss_and_gradients(name, dtype, scale):
    objective = make(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        figures = objective(*outputs(dtype=dtype, scale=scale), Ctx())
    figures["loss"].backward()
    assert all(torch.isfinite(value).all() for value in figures.values())
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


def test_gradients_reach_every_parameter(name):
    objective = make(name)
    objective(*outputs(), Ctx())["loss"].backward()
    idle = [
        key for key, parameter in objective.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


def test_padding_changes_nothing(name):
    objective = make(name)
    torch.testing.assert_close(
        objective(*outputs(extra_padding=3), Ctx())["loss"], objective(*outputs(), Ctx())["loss"]
    )


def test_order_of_pairs_changes_nothing(name):
    objective = make(name)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        objective(*permuted(*outputs(), order, order), Ctx())["loss"], objective(*outputs(), Ctx())["loss"]
    )


def test_a_matched_batch_beats_a_shuffled_one_after_a_few_steps(name):
    objective = make(name)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for step in range(30):
        optimizer.zero_grad()
        objective(*outputs(), Ctx(step=step))["loss"].backward()
        optimizer.step()
        objective.after_step(step)
    shuffled = permuted(*outputs(), torch.arange(B), torch.arange(B).roll(1))
    assert objective(*outputs(), Ctx())["loss"] < objective(*shuffled, Ctx())["loss"]


def test_a_pair_that_is_known_to_be_true_is_no_negative(name):
    objective = make(name)
    known = torch.zeros(B, B, dtype=torch.bool)
    known[0, 1] = known[2, 3] = True
    with_mask = objective(*outputs(), Ctx(extra={"known_true": known}))["loss"]
    assert with_mask < objective(*outputs(), Ctx())["loss"]


def test_the_trained_score_is_the_score_at_evaluation(name):
    """The global logits of the training batch are what `similarity` gives, up to the temperature."""
    from sparc_bench.features import ImageFeatures, TextFeatures

    objective = make(name)
    image, text = outputs()
    need = frozenset({"global", "patches"})
    global_ND, patches = objective.image_features(image, need)
    global_MD, _ = objective.text_features(text, need)
    features = ImageFeatures(tuple(map(str, range(B))), global_ND, patches=patches, grid=image.grid)
    scores_NM, same_NM = objective.similarity(features, TextFeatures(("",) * B, global_MD))
    assert scores_NM is same_NM
    logits = objective.scale * scores_NM
    labels = torch.arange(B)
    loss = (torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(objective(image, text, Ctx())["global_loss"], loss.detach())
    assert set(patches) == set(objective.paths)
