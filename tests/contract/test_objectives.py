"""Every loss in the folder: finite, gradients everywhere, blind to padding and order, prefers matched pairs."""

import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.objective import Ctx
from tests.toys.tower_outputs import B, make, outputs, permuted, vectors

PAIRWISE = [
    name
    for name in discovery.names("objectives")
    if "text_chunk" in discovery.load("objectives", name).Objective.Options.model_fields
]


@pytest.fixture(params=discovery.names("objectives"))
def name(request):
    return request.param


def test_it_has_a_title_a_source_and_described_options(name):
    module = discovery.load("objectives", name)
    assert module.TITLE
    assert module.SOURCE
    assert all(field.description for field in module.Objective.Options.model_fields.values())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["random", "zero"])
def test_finite_loss_and_gradients(name, dtype, scale):
    objective = make(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        figures = objective(*outputs(objective, dtype=dtype, scale=scale), Ctx())
    figures["loss"].backward()
    assert all(torch.isfinite(value).all() for value in figures.values())
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


def test_finite_where_the_heads_are_zero(name):
    objective = make(name)
    with torch.no_grad():
        for key, parameter in objective.named_parameters():
            if key.startswith(("g_v", "g_t")):
                parameter.zero_()
    figures = objective(*outputs(objective), Ctx())
    figures["loss"].backward()
    assert all(torch.isfinite(value).all() for value in figures.values())
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


def test_gradients_reach_every_parameter(name):
    objective = make(name)
    objective(*outputs(objective), Ctx())["loss"].backward()
    idle = [
        key for key, parameter in objective.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


def test_figures_are_scalars_and_only_the_loss_carries_gradients(name):
    objective = make(name)
    figures = objective(*outputs(objective), Ctx())
    assert [key for key, value in figures.items() if value.ndim > 0] == []
    assert [key for key, value in figures.items() if value.requires_grad] == ["loss"]


def test_padding_changes_nothing(name):
    objective = make(name)
    torch.testing.assert_close(
        objective(*outputs(objective, extra_padding=3), Ctx())["loss"], objective(*outputs(objective), Ctx())["loss"]
    )


def test_order_of_pairs_changes_nothing(name):
    objective = make(name)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        objective(*permuted(*outputs(objective), order, order), Ctx())["loss"],
        objective(*outputs(objective), Ctx())["loss"],
    )


@pytest.mark.slow
def test_a_matched_batch_beats_a_shuffled_one_after_a_few_steps(name):
    objective = make(name)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for step in range(30):
        optimizer.zero_grad()
        objective(*outputs(objective), Ctx())["loss"].backward()
        optimizer.step()
        objective.after_step(step)
    shuffled = permuted(*outputs(objective), torch.arange(B), torch.arange(B).roll(1))
    assert objective(*outputs(objective), Ctx())["loss"] < objective(*shuffled, Ctx())["loss"]


def test_a_pair_that_is_known_to_be_true_is_no_negative(name):
    objective = make(name)
    if name == "mv_dhel":
        pytest.skip("its negatives are of the same kind as the view: no image is one for a text")
    known = torch.zeros(B, B, objective.captions_per_image, dtype=torch.bool)
    known[0, 1] = known[2, 3] = True
    with_mask = objective(*outputs(objective), Ctx(extra={"known_true": known}))["loss"]
    assert with_mask < objective(*outputs(objective), Ctx())["loss"]


def test_the_score_at_evaluation_is_what_was_trained(name):
    """The logits that the objective names are its test score on the training batch, times the scale."""
    objective = make(name)
    image, text = outputs(objective, equal_captions=True)
    images, texts = vectors(objective, image, text)
    ctx = Ctx()
    objective(image, text, ctx)
    assert set(images.patches) == set(objective.paths)
    if not objective.scored_as:
        pytest.skip("its loss is of no score (multi-view losses)")
    with torch.no_grad():
        to_text_NN, to_image_NN = objective.similarity(images, texts)
    trained = [ctx.logits[key] for key in objective.scored_as]
    for at, scores_NN in ((0, to_text_NN), (1, to_image_NN.T)):
        logits_NN = torch.stack([logits[at][:, :B] for logits in trained]).mean(0)
        torch.testing.assert_close(logits_NN, objective.scale.detach() * scores_NN, rtol=1e-4, atol=1e-4)


def test_whole_images_score_as_a_region_of_every_patch(name):
    """A region of all patches alike is scored, and a patch that is outside of the region does not matter."""
    from sparc_bench.features import Regions

    objective = make(name)
    images, texts = vectors(objective, *outputs(objective, equal_captions=True))
    patches = next(iter(images.patches.values())).shape[1]
    weights_RP = torch.zeros(2, patches)
    weights_RP[:, :3] = 1 / 3
    for path in objective.paths:
        with torch.no_grad():
            before_RM = objective.similarity(images, texts, Regions(weights_RP, torch.tensor([0, 4])), path)[0]
            images.patches[path][:, 3:] += 5.0
            after_RM = objective.similarity(images, texts, Regions(weights_RP, torch.tensor([0, 4])), path)[0]
        assert before_RM.shape == (2, B)
        assert torch.isfinite(before_RM).all()
        torch.testing.assert_close(before_RM, after_RM)


def test_dense_scores_are_those_of_single_patches(name):
    from sparc_bench.features import Regions

    objective = make(name)
    images, texts = vectors(objective, *outputs(objective, equal_captions=True))
    for path in objective.paths:
        with torch.no_grad():
            dense_NMHW = objective.dense_scores(images, texts, path)
            patches = images.patches[path].shape[1]
            one = Regions(torch.eye(patches), torch.full((patches,), 2))
            scores_PM = objective.similarity(images, texts, one, path)[0]
        torch.testing.assert_close(dense_NMHW[2].flatten(1).T, scores_PM, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_of_texts_change_neither_loss_nor_gradients(name, chunk):
    """In chunks that do not divide the batch, computed again in the backward pass."""
    values = []
    for size in (chunk, None):
        objective = make(name, dtype=torch.float64, text_chunk=size)
        image, text = outputs(objective, dtype=torch.float64)
        image.patches_BPW.requires_grad_()
        text.tokens_BKLW.requires_grad_()
        generator = torch.Generator().manual_seed(0)
        loss = objective(image, text, Ctx(generator=generator))["loss"]
        leaves = [image.patches_BPW, text.tokens_BKLW, *objective.parameters()]
        values.append((loss, *torch.autograd.grad(loss, leaves, allow_unused=True)))
    for ours, plain in zip(*values, strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None:
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-8)


def test_a_token_path_is_one_whose_patches_and_tokens_the_loss_compares(name):
    objective = make(name)
    if objective.token_path is None:
        return
    assert objective.paths[objective.token_path]
    assert "tokens" in objective.gives
    image, text = outputs(objective)
    text.tokens_BKLW.requires_grad_()
    image.patches_BPW.requires_grad_()
    objective(image, text, Ctx())["loss"].backward()
    assert text.tokens_BKLW.grad.any()
    assert image.patches_BPW.grad.any()
