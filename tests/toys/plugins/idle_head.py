"""Plug-in loss with a head that takes no part in it."""

import torch

from sparc_bench.objectives.clip import Objective as Clip

TITLE = "clip beside an idle head"
SOURCE = "made up"


class Objective(Clip):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.idle = torch.nn.Linear(3, 3)
