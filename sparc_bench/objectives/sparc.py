"""SPARC: sparse fine-grained contrastive alignment (Bica et al. 2024, arXiv 2401.09865, section 2).

Shapes: B batch, L text tokens, P patches, D joint width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from sparc_bench.cards.bounds import Number, Share, Temperature, Weight
from sparc_bench.cards.card import Extended, Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives._sparc_held_out import held_out_figures
from sparc_bench.objectives._sparc_negatives import other_images_logits, same_position_logits
from sparc_bench.objectives.clip import contrastive_loss, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "SPARC: CLIP's loss plus a token-wise contrast with sparsely grouped patches of the same pair"
SOURCE = "Bica et al. 2024, arXiv 2401.09865, eqs. 2 to 7"

HELD_OUT_SCALE = 1 / 0.07
"""Inverse temperature of the held-out figures, the same for all runs."""

Weights = Literal["sparse", "dense", "softmax", "sum_normalised"]
Negatives = Literal["caption", "captions", "images", "captions_and_images"]


def alignment_weights(
    patches_BPD: Float[Tensor, "B P D"],
    tokens_BLD: Float[Tensor, "B L D"],
    threshold: float | None = None,
    weights: Weights = "sparse",
) -> Float[Tensor, "B L P"]:
    """Alignment weights of patches for each token (eqs. 2 to 4), from un-normalised vectors.

    Inner products are min-max scaled over the patches of each token, values under the threshold become 0, and the rest
    is divided by its sum. Gradients flow through all steps, which are computed in float32 under autocast. A token to
    which all patches are equally similar (0/0 in the paper) weights them equally.

    The other `weights` are the paper's ablations (table 8) and the variant that its prose describes. "dense" has no
    threshold. "softmax" is the softmax of the inner products; the paper states no temperature, and there is none here.
    "sum_normalised" divides the min-max scaled values by their sum before the threshold, so that patches below the
    average become 0, and afterwards by the sum of the rest. (Section 2 motivates 1/P with weights that sum to 1; eq. 3
    and listing 1 compare 1/P with the min-max scaled values, of which it removes next to none.)

    Args:
        patches_BPD: adapted patches.
        tokens_BLD: adapted tokens.
        threshold: sigma; None for the paper's 1/P. With "sum_normalised", the most similar patch always stays.
        weights: the rule; "sparse" and "sum_normalised" have a threshold.
    """
    with torch.autocast(patches_BPD.device.type, enabled=False):
        similarity_BLP = torch.einsum("bld,bpd->blp", full_precision(tokens_BLD), full_precision(patches_BPD))
        return _weights_of(similarity_BLP, threshold, weights)


def _weights_of(similarity_BLP: Tensor, threshold: float | None, weights: Weights) -> Tensor:
    if weights == "softmax":
        return similarity_BLP.softmax(-1)
    lowest_BL1, highest_BL1 = similarity_BLP.aminmax(dim=-1, keepdim=True)
    span_BL1 = highest_BL1 - lowest_BL1
    constant_BL1 = span_BL1 <= torch.finfo(span_BL1.dtype).tiny
    scaled_BLP = (similarity_BLP - lowest_BL1) / span_BL1.masked_fill(constant_BL1, 1.0)
    scaled_BLP = scaled_BLP.masked_fill(constant_BL1, 1.0)
    if weights != "dense":
        sigma = 1 / similarity_BLP.shape[-1] if threshold is None else threshold
        # compared without division by the sum; 1 is the scaled value of the most similar patch
        cut = sigma if weights == "sparse" else (sigma * scaled_BLP.sum(-1, keepdim=True)).clamp_max(1.0)
        scaled_BLP = scaled_BLP.masked_fill(scaled_BLP < cut, 0.0)
    return scaled_BLP / scaled_BLP.sum(-1, keepdim=True)


class _TokenContrast(NamedTuple):
    loss_BL: Tensor
    correct_BL: Tensor
    weights_BLP: Tensor


def _token_contrast(
    patches_BPD: Tensor,
    tokens_BLD: Tensor,
    mask_BL: Tensor,
    scale: Tensor | float,
    threshold: float | None,
    weights: Weights,
    negatives: Negatives = "caption",
    other_images: int = 8,
    ctx: Ctx | None = None,
) -> _TokenContrast:
    ctx = ctx or Ctx()
    with torch.autocast(patches_BPD.device.type, enabled=False):
        patches_BPD = full_precision(patches_BPD)
        tokens_BLD = full_precision(tokens_BLD).masked_fill(~mask_BL.unsqueeze(-1), 0.0)
        weights_BLP = alignment_weights(patches_BPD, tokens_BLD, threshold, weights)
        grouped_BLD = F.normalize(torch.einsum("blp,bpd->bld", weights_BLP, patches_BPD), dim=-1, eps=1e-6)
        unit_BLD = F.normalize(tokens_BLD, dim=-1, eps=1e-6)
        logits_BLL = scale * torch.einsum("bld,bkd->blk", grouped_BLD, unit_BLD)
        column_BLL = ~mask_BL.unsqueeze(1).expand_as(logits_BLL)
        fill = torch.finfo(logits_BLL.dtype).min
        from_grouped_BLL = logits_BLL.masked_fill(column_BLL, fill)
        from_token_BLL = logits_BLL.transpose(1, 2).masked_fill(column_BLL, fill)
        diagonal_BL = logits_BLL.diagonal(dim1=1, dim2=2)
        of_grouped, of_token = [from_grouped_BLL], [from_token_BLL]
        if negatives in ("captions", "captions_and_images"):
            of_grouped_BLN, of_token_BLN = same_position_logits(grouped_BLD, unit_BLD, mask_BL, scale, ctx)
            of_grouped.append(of_grouped_BLN)
            of_token.append(of_token_BLN)
        if negatives in ("images", "captions_and_images"):

            def weigh(similarity_BLP: Tensor) -> Tensor:
                return _weights_of(similarity_BLP, threshold, weights)

            of_token.append(other_images_logits(patches_BPD, tokens_BLD, mask_BL, scale, weigh, other_images, ctx))
        loss_BL = (torch.cat(of_grouped, -1).logsumexp(-1) + torch.cat(of_token, -1).logsumexp(-1)) / 2 - diagonal_BL
        correct_BL = from_grouped_BLL.argmax(-1) == torch.arange(logits_BLL.shape[1], device=logits_BLL.device)
        return _TokenContrast(loss_BL.masked_fill(~mask_BL, 0.0), correct_BL & mask_BL, weights_BLP)


def _reduced(loss_BL: Tensor, mask_BL: Tensor, reduction: str, ctx: Ctx) -> Tensor:
    words_B = mask_BL.sum(-1).to(loss_BL.dtype)
    if reduction == "token":
        return ctx.mean(loss_BL.sum(-1) / words_B.clamp_min(1), words_B)
    return ctx.mean(loss_BL.sum(-1) / words_B.clamp_min(1), (words_B > 0).to(loss_BL.dtype))


def fine_grained_loss(
    patches_BPD: Float[Tensor, "B P D"],
    tokens_BLD: Float[Tensor, "B L D"],
    mask_BL: Bool[Tensor, "B L"],
    scale: Float[Tensor, ""] | float,
    threshold: float | None = None,
    reduction: Literal["caption", "token"] = "caption",
    ctx: Ctx | None = None,
    weights: Weights = "sparse",
    negatives: Negatives = "caption",
    other_images: int = 8,
) -> Float[Tensor, ""]:
    """Contrast of each token with its language-grouped vision embedding (eqs. 5 and 6).

    For word l of caption b with the unit vectors t_bl of the token and c_bl of the group, and inverse temperature s:

        loss_bl = log(sum_k exp(s c_bl . t_bk) + G_bl) / 2 + log(sum_k exp(s t_bl . c_bk) + T_bl) / 2 - s c_bl . t_bl

    where k runs over the words of the caption, its own among them. In the paper (`negatives` "caption") G and T are 0:
    the contrast never sees another image. The other choices are not the paper's:

    - "captions", the same position of the batch's other captions n: G = sum_n exp(s c_bl . t_nl) and
      T = sum_n exp(s t_bl . c_nl), where c_nl is what t_nl groups from its own image n;
    - "images", what the same token groups from other images n: T = sum_n exp(s t_bl . c_nbl), where c_nbl is c of
      the token t_bl and the patches of n; G is 0, because c_nbl has no token of its own to be contrasted with;
    - "captions_and_images", the sums of both.

    Captions without a word at the position give no negative, nor do pairs (image, caption) of `ctx.known_true()`.

    Args:
        patches_BPD: adapted patches, un-normalised.
        tokens_BLD: adapted tokens, un-normalised; the content of padding changes nothing.
        mask_BL: True where a token is a word.
        scale: inverse temperature.
        threshold: see `alignment_weights`.
        reduction: "caption" for the mean per caption, then over captions (eq. 6); "token" for that over all tokens
            (listing 1).
        ctx: context of the run, for data parallelism and pairs that are known to be true.
        weights: see `alignment_weights`.
        negatives: the further negatives.
        other_images: number of other images of "images": the next ones of the batch, cyclically, or all if it has
            fewer.

    Returns:
        The mean of both directions; captions without a word do not count.
    """
    ctx = ctx or Ctx()
    contrast = _token_contrast(
        patches_BPD, tokens_BLD, mask_BL, scale, threshold, weights, negatives, other_images, ctx
    )
    return _reduced(contrast.loss_BL, mask_BL, reduction, ctx)


class SparcOptions(HeadOptions, Extended):
    """Weights of the losses, and the points that the paper leaves open."""

    FORMER: ClassVar[Mapping[str, Any]] = {
        "fine_start_temperature": None,
        "fine_negatives": "caption",
        "other_images": 8,
    }

    global_weight: Weight = Field(default=0.5, description="lambda_g, weight of the global loss (section D.4: 0.5)")
    fine_weight: Weight = Field(
        default=1.0,
        description="lambda_f, weight of the fine loss (section D.4: sweep of 0.5, 1, 5, 10; choice not stated)",
    )
    weights: Weights = Field(
        default="sparse",
        description="alignment weights: sparse (eqs. 2 to 4); the ablations dense (no threshold) and softmax (table 8);"
        " sum_normalised, with the threshold on weights that sum to 1, as in section 2's prose",
    )
    threshold: Share | None = Field(
        default=None, description="sigma of sparse and sum_normalised weights; none: 1/P (section 2)"
    )
    reduction: Literal["caption", "token"] = Field(
        default="caption",
        description="mean of the fine loss over captions (eq. 6) or tokens (listing 1, where long captions weigh more)",
    )
    fine_temperature: Literal["shared", "separate"] = Field(
        default="shared",
        description="shared: one temperature for both losses, as written; separate: one for each, so that an easy "
        "fine loss does not change that of the global loss",
    )
    fine_start_temperature: Temperature | None = Field(
        default=None, description="initial temperature of the fine loss where it is separate; none: `temperature`"
    )
    fine_tokens: Literal["words", "words_and_specials"] = Field(
        default="words", description="tokens of the fine loss, without or with BOS and EOS (not stated)"
    )
    fine_negatives: Negatives = Field(
        default="caption",
        description="negatives of a token and of its grouped vector: those of its own caption (caption; the paper's); "
        "also those at the same position of the batch's other captions (captions), or for the token what it groups "
        "from other images (images), or both (captions_and_images)",
    )
    other_images: Number = Field(
        default=8,
        description="other images with fine_negatives of images, from which a token groups negatives: the next ones "
        "of the batch, or all that it has; time grows with them",
    )

    @model_validator(mode="after")
    def _options_have_a_use(self) -> SparcOptions:
        if self.threshold is not None and self.weights in ("dense", "softmax"):
            raise ValueError(f"weights = '{self.weights}' have no threshold: leave one of the two out")
        if self.fine_start_temperature is not None and self.fine_temperature == "shared":
            raise ValueError(
                "fine_temperature = 'shared' starts at temperature: leave fine_start_temperature out, or set "
                "fine_temperature = 'separate'"
            )
        if "other_images" in self.model_fields_set and self.fine_negatives in ("caption", "captions"):
            raise ValueError(
                f"fine_negatives = '{self.fine_negatives}' see no other_images: leave that out, or set "
                "fine_negatives = 'images'"
            )
        return self


class Objective(HeadedObjective):
    """lambda_g times the global loss plus lambda_f times the fine-grained loss (eq. 7)."""

    Options: ClassVar[type[Strict]] = SparcOptions
    paths: ClassVar[Mapping[str, bool]] = {"local": True, "global": True}
    token_path: ClassVar[str | None] = "local"
    options: SparcOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        if self.options.fine_temperature == "separate":
            start = self.options.fine_start_temperature or self.options.temperature
            self.log_fine_scale = nn.Parameter(torch.tensor(math.log(1 / start)))

    @property
    def fine_scale(self) -> Tensor:
        """The inverse temperature of the fine loss."""
        return self.log_fine_scale.exp() if self.options.fine_temperature == "separate" else self.scale

    def _fine_inputs(self, image: ImageOut, text: TextOut) -> tuple[Tensor, Tensor, Tensor]:
        mask_BL = text.mask_BKL[:, 0]
        if self.options.fine_tokens == "words_and_specials":
            mask_BL = mask_BL | text.special_BKL[:, 0]
        return self.g_v(image.patches_BPW), self.g_t(text.tokens_BKLW[:, 0]), mask_BL

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Both losses of the first caption; the share of zero weights, and their entropy as a share of its maximum."""
        global_loss = contrastive_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, ctx.known_true(), ctx
        )
        patches_BPD, tokens_BLD, mask_BL = self._fine_inputs(image, text)
        contrast = _token_contrast(
            patches_BPD,
            tokens_BLD,
            mask_BL,
            self.fine_scale,
            self.options.threshold,
            self.options.weights,
            self.options.fine_negatives,
            self.options.other_images,
            ctx,
        )
        fine_loss = _reduced(contrast.loss_BL, mask_BL, self.options.reduction, ctx)
        with torch.no_grad():
            words_XP = contrast.weights_BLP[mask_BL]
            entropy_X = torch.special.entr(words_XP).sum(-1) / math.log(words_XP.shape[-1])
        return {
            "loss": self.options.global_weight * global_loss + self.options.fine_weight * fine_loss,
            "global_loss": global_loss.detach(),
            "fine_loss": fine_loss.detach(),
            "fine_accuracy": contrast.correct_BL[mask_BL].float().mean(),
            "weights_zeroed": (words_XP == 0).float().mean(),
            "weights_entropy": entropy_X.mean(),
            "scale": self.scale.detach(),
            **({"fine_scale": self.fine_scale.detach()} if self.options.fine_temperature == "separate" else {}),
        }

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Clamp both inverse temperatures to 1..max_scale."""
        super().after_step(step)
        if self.options.fine_temperature == "separate":
            self.log_fine_scale.clamp_(0.0, math.log(self.options.max_scale))

    @torch.no_grad()
    def held_out(self, batches: Sequence[tuple[ImageOut, ImageOut, TextOut]]) -> dict[str, Any]:
        """Fine loss per caption at the fixed scale 1/0.07 with the true, a shuffled and a grey image.

        The negatives are tokens of the same caption, so that a low loss does not show that words find their patches;
        only the gain of the true image over the grey one shows use of the image, and only masks measure grounding.
        These negatives and this scale are those of every run, whatever its `fine_negatives` and temperature, so that
        gains can be compared; they are in nats of that loss, not of the one that was minimised.

        Returns:
            Mean loss, standard error and token accuracy for each kind of image; the paired gains of the true image over
            both others with 95 % intervals (normal approximation); a sentence about their meaning.
        """
        losses: dict[str, list[Tensor]] = {"true": [], "shuffled": [], "grey": []}
        correct: dict[str, list[Tensor]] = {"true": [], "shuffled": [], "grey": []}
        words: list[Tensor] = []
        for image, grey, text in batches:
            patches_BPD, tokens_BLD, mask_BL = self._fine_inputs(image, text)
            grey_BPD = self.g_v(grey.patches_BPW).expand_as(patches_BPD)
            words.append(mask_BL.sum(-1))
            kinds = {"true": patches_BPD, "shuffled": patches_BPD.roll(1, 0), "grey": grey_BPD}
            for kind, kind_BPD in kinds.items():
                contrast = _token_contrast(
                    kind_BPD, tokens_BLD, mask_BL, HELD_OUT_SCALE, self.options.threshold, self.options.weights
                )
                losses[kind].append(contrast.loss_BL.sum(-1) / mask_BL.sum(-1).clamp_min(1))
                correct[kind].append(contrast.correct_BL.sum(-1))
        return held_out_figures(
            {kind: torch.cat(parts) for kind, parts in losses.items()},
            {kind: torch.cat(parts) for kind, parts in correct.items()},
            torch.cat(words),
            HELD_OUT_SCALE,
        )
