"""The heads of SPARC's section 2, which all objectives share: average pooling, h_v, linear g_v and g_t.

v = g_v(h_v(mean_p f_v(x_p))), v_p = g_v(f_v(x_p)), t = g_t(mean_l f_t(x_l)), t_l = g_t(f_t(x_l)). For the towers of an
open_clip checkpoint, the class token and the end-of-text token take the place of both means, the checkpoint's
projections are the initial g_v and g_t, and h_v is the identity.

Shapes: B batch, K captions per image, L text tokens, P patches, W tower width, D joint width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sparc_bench.cards.bounds import Scale, Temperature, Width
from sparc_bench.cards.card import Strict
from sparc_bench.objective import ImageOut, ImageVectors, Objective, TextOut


class HeadOptions(Strict):
    """Options of the heads; the defaults follow the paper's text, which leaves several points open.

    In a recipe with `init`, `dim` defaults to the joint width of that model and, for an open_clip checkpoint,
    `image_head` to "none".
    """

    dim: Width = Field(default=512, description="joint width d (section D.1: 512)")
    image_head: Literal["gelu", "relu", "residual", "none"] = Field(
        default="gelu",
        description="h_v, 'a single non-linear layer' of unstated form: Linear + GELU or ReLU, x + GELU(Linear(x)), or "
        "none (listing 1 omits it)",
    )
    text_pool: Literal["words", "words_and_specials", "context"] = Field(
        default="words",
        description="tokens that the text mean runs over: words (an open_clip checkpoint's tower gives its own pooled "
        "output instead), words with BOS and EOS (not stated), or every position, padding included (listing 1)",
    )
    temperature: Temperature = Field(
        default=0.07, description="initial temperature; learned, as in the paper throughout"
    )
    max_scale: Scale = Field(default=100.0, description="upper bound of the inverse temperature (CLIP's)")


class HeadedObjective(Objective):
    """Base of the objectives on the paper's heads; subclasses add the loss."""

    Options: ClassVar[type[Strict]] = HeadOptions
    paths: ClassVar[Mapping[str, bool]] = {"local": False, "global": True}
    options: HeadOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        assert isinstance(options, HeadOptions)
        self.options = options
        self.g_v = nn.Linear(image_width, options.dim, bias=False)
        self.g_t = nn.Linear(text_width, options.dim, bias=False)
        self.h_v = nn.Identity() if options.image_head == "none" else _NonLinear(image_width, options.image_head)
        for adapter in (self.g_v, self.g_t):
            nn.init.normal_(adapter.weight, std=adapter.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / options.temperature)))

    @property
    def scale(self) -> Tensor:
        """The learned inverse temperature."""
        return self.log_scale.exp()

    def inverse_temperature(self) -> float | None:
        """`scale` as a number."""
        return float(self.scale.detach())

    @classmethod
    def tower_options(cls, options: Strict) -> dict[str, Any]:
        """`full_context` for the mean over every position (listing 1), which needs captions padded to the context."""
        assert isinstance(options, HeadOptions)
        return {"full_context": True} if options.text_pool == "context" else {}

    def global_image(self, image: ImageOut) -> Tensor:
        """Image vectors v = g_v(h_v(mean of patches)): BD."""
        return self.g_v(self.h_v(image.pooled_BMW[:, 0]))  # type: ignore[no-any-return]

    def global_text(self, text: TextOut) -> Tensor:
        """Text vectors t = g_t(mean of tokens) of every caption: BKD."""
        if self.options.text_pool == "words":
            return self.g_t(text.pooled_BKW)  # type: ignore[no-any-return]
        if self.options.text_pool == "context":
            return self.g_t(text.tokens_BKLW.mean(2))  # type: ignore[no-any-return]
        weight_BKL1 = (text.mask_BKL | text.special_BKL).unsqueeze(-1).to(text.tokens_BKLW.dtype)
        return self.g_t((text.tokens_BKLW * weight_BKL1).sum(2) / weight_BKL1.sum(2))  # type: ignore[no-any-return]

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Global vectors, and patches by the local path g_v(f_v(x_p)) and the global path g_v(h_v(f_v(x_p)))."""
        global_ND = self.global_image(image) if "global" in need else None
        if "patches" not in need:
            return ImageVectors(global_ND)
        local_NPD = self.g_v(image.patches_BPW)
        return ImageVectors(global_ND, {"local": local_NPD, "global": self.g_v(self.h_v(image.patches_BPW))})

    def text_features(self, text: TextOut, need: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """Global vectors, and g_t of every token."""
        global_MD = self.global_text(text)[:, 0] if "global" in need else None
        return global_MD, self.g_t(text.tokens_BKLW[:, 0]) if "tokens" in need else None

    @torch.no_grad()
    def after_step(self, step: int) -> None:  # noqa: ARG002 - the seam's signature
        """Clamp the inverse temperature to 1..max_scale."""
        self.log_scale.clamp_(0.0, math.log(self.options.max_scale))


class _NonLinear(nn.Module):
    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.activation = nn.ReLU() if form == "relu" else nn.GELU()
        self.residual = form == "residual"

    def forward(self, x_BW: Tensor) -> Tensor:
        y_BW: Tensor = self.activation(self.linear(x_BW))
        return x_BW + y_BW if self.residual else y_BW
