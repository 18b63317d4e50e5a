"""MV-InfoNCE: one softmax over all pairs of views of all objects (arXiv 2507.06979).

Shapes: V views, N pairs of all ranks, K = V - 1 captions, D joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives._views import ViewOptions, ViewsObjective
from sparc_bench.objectives.clip import full_precision

TITLE = "MV-InfoNCE: contrast of all views of an image and its captions at once"
SOURCE = "arXiv 2507.06979"


def multi_view_infonce_loss(
    views_VND: Float[Tensor, "V N D"], temperature: float, known_true_NNK: Bool[Tensor, "N N K"] | None = None
) -> Float[Tensor, ""]:
    """-mean_i log(sum_{l != m} e^{z_li.z_mi / T} / sum_{(l,i) != (m,j)} e^{z_li.z_mj / T}); normalised here.

    The denominator holds all views of all objects, negatives of the same view included, as in the paper's results (the
    summary in its repository omits them).

    Args:
        views_VND: views of N objects.
        temperature: temperature T.
        known_true_NNK: (image, image of the caption, caption) pairs that are true, hence no negatives: view 0 of the
            first object with view 1 + k of the second.
    """
    with torch.autocast(views_VND.device.type, enabled=False):
        views_VND = F.normalize(full_precision(views_VND), dim=-1)
        logits_VNVN = torch.einsum("vnd,wmd->vnwm", views_VND, views_VND) / temperature
        views, things = views_VND.shape[:2]
        lowest = torch.finfo(logits_VNVN.dtype).min
        same_VV = torch.eye(views, dtype=torch.bool, device=views_VND.device)
        same_NN = torch.eye(things, dtype=torch.bool, device=views_VND.device)
        left_out_VNVN = same_VV[:, None, :, None] & same_NN[None, :, None, :]
        if known_true_NNK is not None:
            left_out_VNVN[0, :, 1:] |= known_true_NNK.transpose(1, 2)
            left_out_VNVN[1:, :, 0] |= known_true_NNK.permute(2, 1, 0)
        all_N = logits_VNVN.masked_fill(left_out_VNVN, lowest).transpose(0, 1).flatten(1).logsumexp(-1)
        positive_VVN = logits_VNVN.diagonal(dim1=1, dim2=3).masked_fill(same_VV.unsqueeze(-1), lowest)
        return (all_N - positive_VVN.flatten(0, 1).logsumexp(0)).mean()


class Objective(ViewsObjective):
    """MV-InfoNCE alone, on the image and its captions."""

    Options = ViewOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss over the views of all ranks, since it is no mean over the rows of one rank."""
        views_VND = self.views(image, text, ctx)
        loss = multi_view_infonce_loss(views_VND, self.options.temperature, ctx.extra.get("known_true"))
        return {"loss": loss, "scale": self.scale}
