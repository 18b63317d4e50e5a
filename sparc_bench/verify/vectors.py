"""Checks of the vectors: shapes, finite values, different inputs apart, equal inputs equal in every batch.

Shapes: N images, M texts, P patches, L text tokens, D joint width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.probed_model import ProbedModel, apart, distance, image_rows, image_vectors, widest

EQUAL = 1e-6
"""Relative distance up to which two vectors count as the same."""

ALIKE = 0.999
"""Mean cosine of different images above which the finding is a warning."""


def shapes(model: ProbedModel) -> Finding:
    """Finding on the shapes of features and scores that tasks rely on."""
    wrong = list(_wrong_shapes(model))
    expected = "one vector an image and a text, patches = rows x columns"
    if wrong:
        return Finding("fail", "; ".join(wrong), expected, f"Mend images() or texts() of the encoder: {wrong[0]}.")
    return Finding("ok", _sizes(model), expected)


def _sizes(model: ProbedModel) -> str:
    parts = []
    if "image" in model.gives:
        features = model.images
        parts += [] if features.global_ND is None else [f"images {_by(features.global_ND)}"]
        if features.grid is not None:
            width = next(iter(features.patches.values())).shape[-1]
            grid = f"{features.grid[0]} x {features.grid[1]}"
            parts.append(f"patches {grid} x {width} ({', '.join(features.patches)})")
    if "text" in model.gives and model.texts.global_MD is not None:
        parts.append(f"texts {_by(model.texts.global_MD)}")
    return ", ".join(parts)


def _by(vectors: Tensor) -> str:
    return " x ".join(map(str, vectors.shape))


def _wrong_shapes(model: ProbedModel) -> Iterator[str]:
    gives = model.gives
    if "image" in gives:
        yield from _wrong_images(model, model.images)
    if "text" in gives:
        yield from _wrong_texts(model, model.texts)
    if not {"image", "text"} <= gives:
        return
    pair = model.encoder.similarity(model.images, model.texts)
    wanted = (len(model.views), len(model.strings))
    for name, scores in zip(("image-to-text", "text-to-image"), pair, strict=True):
        if tuple(scores.shape) != wanted:
            yield f"similarity gives {name} scores {_by(scores)} for {wanted[0]} images and {wanted[1]} texts"
    for path in model.images.patches:
        scores = model.encoder.dense_scores(model.images, model.texts, path)
        if tuple(scores.shape) != (*wanted, *(model.images.grid or ())):
            yield f"dense_scores of '{path}' gives {_by(scores)} for {wanted[0]} images, {wanted[1]} texts and the grid"


def _wrong_images(model: ProbedModel, features: ImageFeatures) -> Iterator[str]:
    count, gives, paths = len(model.views), model.gives, list(model.encoder.paths)
    if features.ids != tuple(view.id for view in model.views):
        yield "the ids of the image features are not those of the images, in order"
    if "global" in gives and (features.global_ND is None or features.global_ND.ndim != 2):
        yield "gives says 'global', but images give no global_ND of one vector each"
    if "patches" in gives and list(features.patches) != paths:
        yield f"paths says {', '.join(paths) or 'nothing'}, but images give patches of {', '.join(features.patches)}"
    if "patches" in gives and not paths:
        yield "gives says 'patches', but paths is empty"
    if "branches" in gives and (features.branches_NKD is None or features.branches_NKD.ndim != 3):
        yield "gives says 'branches', but images give no branches_NKD"
    for name, vectors in image_vectors(features).items():
        if len(vectors) != count:
            yield f"{count} images give {len(vectors)} rows of {name}"
    if features.patches:
        yield from _wrong_grid(features, count)


def _wrong_grid(features: ImageFeatures, count: int) -> Iterator[str]:
    if features.grid is None:
        yield "images give patches without a grid"
        return
    rows, columns = features.grid
    for path, patches in features.patches.items():
        if patches.ndim != 3 or patches.shape[1] != rows * columns:
            yield f"patches '{path}' are {_by(patches)}, but the grid is {rows} x {columns}"
    if features.area_N4 is None or tuple(features.area_N4.shape) != (count, 4):
        yield "images give patches without an area_N4 of one rectangle each"


def _wrong_texts(model: ProbedModel, features: TextFeatures) -> Iterator[str]:
    count = len(model.strings)
    if features.texts != model.strings:
        yield "the texts of the text features are not those that were asked, in order"
    if features.global_MD is None or features.global_MD.ndim != 2 or len(features.global_MD) != count:
        yield f"{count} texts give no global_MD of one vector each"
    if "tokens" not in model.gives:
        return
    tokens, mask = features.tokens_MLD, features.mask_ML
    if tokens is None or mask is None or tuple(tokens.shape[:2]) != tuple(mask.shape) or len(tokens) != count:
        yield "gives says 'tokens', but texts give no tokens_MLD and mask_ML of one length"
    elif not bool(mask.any(dim=1).all()):
        yield "mask_ML marks no word in some text"


def finite(model: ProbedModel) -> Finding:
    """Finding on NaN, infinities and vectors of length zero."""
    bad, zero = {}, {}
    for name, vectors in _all_vectors(model).items():
        bad[name] = int((~torch.isfinite(vectors)).any(dim=-1).sum())
        zero[name] = int((vectors == 0).all(dim=-1).sum())
    expected = "no NaN, no infinity, no zero vector"
    if any(bad.values()):
        advice = "Look for a division by zero, or for a half-precision overflow: try --precision float32."
        return Finding("fail", f"NaN or infinity in {_counted(bad)}", expected, advice)
    if any(zero.values()):
        advice = "A zero vector has no direction, so that all its scores tie: look for weights that were not loaded."
        return Finding("fail", f"zero vectors in {_counted(zero)}", expected, advice)
    return Finding("ok", "all finite, none zero", expected)


def _all_vectors(model: ProbedModel) -> dict[str, Tensor]:
    found = {}
    if "image" in model.gives:
        found = {f"images ({name})": vectors for name, vectors in image_vectors(model.images).items()}
    if "text" in model.gives and model.texts.global_MD is not None:
        found["texts"] = model.texts.global_MD
    if "tokens" in model.gives and model.texts.tokens_MLD is not None:
        assert model.texts.mask_ML is not None  # its shape has been checked
        found["tokens"] = model.texts.tokens_MLD[model.texts.mask_ML]
    return found


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of the {name}" for name, count in counts.items() if count)


def distinct_images(model: ProbedModel) -> Finding:
    """Finding on different images with equal or nearly equal vectors."""
    rows_ND = image_rows(model.images).double()
    expected = "different images, different vectors"
    if len(rows_ND) < 2:
        return left_out("there is but one image")
    if distance(rows_ND[1:], rows_ND[:1].expand_as(rows_ND[1:])) <= EQUAL:
        advice = "Every image has the same vector: look whether the weights were loaded and the pixels reach the model."
        return Finding("fail", "all images equal", expected, advice)
    cosine_NN = F.normalize(rows_ND, dim=-1) @ F.normalize(rows_ND, dim=-1).T
    mean = float((cosine_NN.sum() - len(rows_ND)) / (len(rows_ND) * (len(rows_ND) - 1)))
    measured = f"mean cosine {mean:.4f}"
    copies = int(same_as_another(rows_ND).sum())
    if copies:
        example = model.views[int(same_as_another(rows_ND).nonzero()[0])].id
        advice = f"Different images share a vector (such as '{example}'): look whether their pixels reach the model."
        return Finding("warning", f"{copies} of {len(rows_ND)} images share a vector", expected, advice)
    if mean > ALIKE:
        advice = (
            "Very different images are hardly told apart: look whether the weights were loaded or are trained at all."
        )
        return Finding("warning", measured, f"under {ALIKE}", advice)
    return Finding("ok", measured, expected)


def distinct_texts(model: ProbedModel) -> Finding:
    """Finding on different texts with equal vectors."""
    vectors_MD = model.texts.global_MD
    assert vectors_MD is not None  # its shape has been checked
    merged = same_as_another(vectors_MD)
    count = int(merged.sum())
    expected = "different texts, different vectors"
    if len(vectors_MD) < 2:
        return left_out("there is but one text")
    if distance(vectors_MD[1:], vectors_MD[:1].expand_as(vectors_MD[1:])) <= EQUAL:
        advice = (
            "Every text has the same vector: look at the tokenizer, and at the position that texts are pooled from."
        )
        return Finding("fail", "all texts equal", expected, advice)
    if count:
        example = model.strings[int(merged.nonzero()[0])]
        advice = (
            f"Some texts cannot be told apart (such as '{example}'): tasks with such words measure nothing; where the "
            "tokenizer does not know them, or cuts them off, keep to tasks in its own words."
        )
        return Finding("warning", f"{count} of {len(model.strings)} texts share a vector", expected, advice)
    return Finding("ok", f"{len(model.strings)} different vectors", expected)


def same_as_another(vectors_MD: Tensor) -> Tensor:
    """True where a row equals another row: M booleans."""
    unit_MD = vectors_MD.double()
    apart_MM = torch.cdist(unit_MD, unit_MD) / unit_MD.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    apart_MM.fill_diagonal_(torch.inf)
    merged_M: Tensor = (apart_MM <= EQUAL).any(dim=1)
    return merged_M


def determinism(model: ProbedModel) -> Finding:
    """Finding on the same call made twice."""
    encoder, worst = model.encoder, 0.0
    if "image" in model.gives:
        pair = probe.IMAGES[:2]
        worst = widest(encoder.images(pair, model.image_need), encoder.images(pair, model.image_need))
    if "text" in model.gives:
        pair_MD = model.text_vectors(probe.TEXTS[:2])
        worst = max(worst, distance(model.text_vectors(probe.TEXTS[:2]), pair_MD))
    expected = f"at most {model.tolerance:.0e} apart"
    if not worst <= model.tolerance:
        advice = "Call eval() on the model once it is loaded: dropout or another random layer is still on."
        return Finding("fail", apart(worst), expected, advice)
    return Finding("ok", apart(worst), expected)


def only_what_is_needed(model: ProbedModel) -> Finding:
    """Finding on global vectors computed alone and together with patches, which have to be equal."""
    encoder, pair = model.encoder, probe.IMAGES[:2]
    alone = encoder.images(pair, frozenset({"global"})).global_ND
    beside = encoder.images(pair, model.image_need).global_ND
    expected = "global vectors do not depend on what else is asked"
    if alone is None or beside is None:
        return Finding("fail", "no global vectors", expected, "Fill global_ND in whenever need holds 'global'.")
    worst = distance(beside, alone)
    if not worst <= model.tolerance:
        advice = "Compute patches beside the global vector: asking for them changes it, so that tasks would disagree."
        return Finding("fail", apart(worst), expected, advice)
    return Finding("ok", apart(worst), expected)


def image_batches(model: ProbedModel) -> Finding:
    """Finding on an image encoded alone, in another batch and in another order."""
    encoder, need, together = model.encoder, model.image_need, model.images
    alone = widest(encoder.images(probe.IMAGES[:1], need), together[:1])
    others = encoder.images([probe.IMAGES[at] for at in (2, 0, 1)], need)
    turned = max(
        widest(others[1:2], together[:1]), widest(others[2:], together[1:2]), widest(others[:1], together[2:3])
    )
    worst = max(alone, turned)
    expected = f"alone or among others at most {model.tolerance:.0e} apart"
    if not worst <= model.tolerance:
        advice = (
            "An image's vector depends on the images beside it: call eval() (batch norm uses the batch in training "
            "mode), and let no operation of the encoder mix the images of a batch."
        )
        return Finding("fail", apart(worst), expected, advice)
    return Finding("ok", apart(worst), expected)
