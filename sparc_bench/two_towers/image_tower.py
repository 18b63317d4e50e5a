"""The base of image towers.

Shapes: B batch, P patches, S what is kept of an image, W width, C channels, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import torch
from torch import Tensor, nn

from sparc_bench.objective import ImageOut


class ImageTower(nn.Module):
    """Base of image towers: normalised pixels BCHW to `ImageOut`.

    Attributes:
        width: width W of the output vectors.
        grid: rows and columns of patches.
        averages: whether the pooled output is the average of the patches, so that a loss on it trains them.
        frozen: whether no training changes its weights.
    """

    width: int
    grid: tuple[int, int]
    averages: bool
    frozen: bool = False

    def at(self, size: tuple[int, int]) -> ImageTower:
        """The tower for an input of `size` (rows, columns); all weights but the position embeddings are shared.

        Raises:
            UserError: the tower does not take this size.
        """
        raise NotImplementedError

    def raw(self, pixels_BCHW: Tensor) -> Tensor:
        """What can be kept of an image where the tower is frozen: BSW, from which `finish` makes the output.

        The pooled outputs come first, then the patches; a tower that averages its patches keeps them alone.
        """
        image: ImageOut = self(pixels_BCHW)
        parts = [image.patches_BPW] if self.averages else [image.pooled_BMW, image.patches_BPW]
        return torch.cat(parts, 1)

    def finish(self, raw_BSW: Tensor) -> ImageOut:
        """The tower's output from what `raw` gave, for the tower's own input size."""
        patches = self.grid[0] * self.grid[1]
        patches_BPW, pooled_BMW = raw_BSW[:, -patches:], raw_BSW[:, :-patches]
        return ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True) if self.averages else pooled_BMW, self.grid)

    def weights_digest(self) -> str:
        """Sha256 of all weights but the buffers that are fitted."""
        found = sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if name not in self.fixed():
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    def fixed(self) -> dict[str, Tensor]:
        """Buffers that are fitted to the training features of a frozen tower, by name."""
        return {}

    @torch.no_grad()
    def fit(self, fixed: Mapping[str, Tensor]) -> None:
        """Set the buffers that `fixed` gives."""
        for name, buffer in self.fixed().items():
            buffer.copy_(fixed[name])
