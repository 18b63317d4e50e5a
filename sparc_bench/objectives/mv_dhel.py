"""MV-DHEL: alignment of all views, with negatives of the same view only (arXiv 2507.06979).

Shapes: V views, N pairs of all ranks, D joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives._views import ViewOptions, ViewsObjective
from sparc_bench.objectives.clip import full_precision

TITLE = "MV-DHEL: alignment of an image with its captions, decoupled from uniformity within each view"
SOURCE = "arXiv 2507.06979"


def multi_view_dhel_loss(views_VND: Float[Tensor, "V N D"], temperature: float) -> Float[Tensor, ""]:
    """-mean_i [log sum_{l < m} e^{z_li.z_mi / T} - sum_l log sum_{j != i} e^{z_li.z_lj / T}]; normalised here.

    Args:
        views_VND: at least two views of each of N objects.
        temperature: temperature T.
    """
    with torch.autocast(views_VND.device.type, enabled=False):
        views_VND = F.normalize(full_precision(views_VND), dim=-1)
        views, things = views_VND.shape[:2]
        within_VNN = torch.einsum("vnd,vmd->vnm", views_VND, views_VND) / temperature
        same_NN = torch.eye(things, dtype=torch.bool, device=views_VND.device)
        negative_VN = within_VNN.masked_fill(same_NN, torch.finfo(within_VNN.dtype).min).logsumexp(-1)
        across_NVV = torch.einsum("vnd,wnd->nvw", views_VND, views_VND) / temperature
        first_X, second_X = torch.triu_indices(views, views, offset=1, device=views_VND.device)
        positive_N = across_NVV[:, first_X, second_X].logsumexp(-1)
        return (negative_VN.sum(0) - positive_N).mean()


class Objective(ViewsObjective):
    """MV-DHEL alone, on the image and its captions.

    Negatives of an image are other images, and negatives of a k-th caption are other k-th captions. Since no image is
    contrasted with another image's caption, the known-true pairs (`Ctx.known_true`) are not used, and discrimination
    across modalities rests on alignment alone.
    """

    Options = ViewOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss over the views of all ranks, since it is no mean over the rows of one rank."""
        loss = multi_view_dhel_loss(self.views(image, text, ctx), self.options.temperature)
        return {"loss": loss, "scale": self.scale}
