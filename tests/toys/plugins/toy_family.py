"""Plug-in encoder family: right on a share of the images that the card states, by the `local` path."""

# ruff: noqa: ARG002 - the seam's methods take more than a toy needs
import hashlib

import torch

from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.view import in_batches

WORDS = {"cat": 0, "dog": 1, "fire hydrant": 2}
LOADED = []


class ToyEncoder(Encoder):
    gives = frozenset({"image", "text", "global", "patches"})
    prompt_ensemble = "embeddings"
    precision = "float32"
    device = torch.device("cpu")

    def __init__(self, card, skill):
        self.card, self.skill = card, skill
        self.paths = {"local": True, "global": False}
        self.weights_hash = f"toy {skill}"
        self.gives = frozenset(card.options.get("gives", ToyEncoder.gives))
        self.train_words = {"cat": 5, "fire": 2}

    def preprocess(self, view):
        return torch.zeros(3, 8, 8), (0.0, 0.0, 8.0, 8.0)

    def _class(self, item_id, skill):
        share = int(hashlib.sha256(item_id.encode()).hexdigest()[:8], 16) / 16**8
        return (int(item_id[-1]) + (share >= skill)) % 3

    def stream(self, groups, need):
        for views in in_batches(groups, self.runtime.batch_size):
            LOADED.append(len(views))
            vectors = {
                path: torch.eye(3)[[self._class(view.id, skill) for view in views]][:, None].repeat(1, 4, 1)
                for path, skill in (("local", self.skill), ("global", self.skill / 2))
            }
            area_N4 = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * len(views))
            yield ImageFeatures(tuple(v.id for v in views), vectors["local"][:, 0], None, vectors, (2, 2), area_N4)

    def texts(self, texts, need):
        return TextFeatures(tuple(texts), torch.eye(3)[[WORDS[text] for text in texts]])

    def dense_scores(self, images, texts, path=None):
        scores = images.patches[path or "local"] @ texts.global_MD.T
        return scores.transpose(1, 2).unflatten(2, images.grid)

    def similarity(self, images, texts, regions=None, path=None):
        scores = images.global_ND @ texts.global_MD.T
        return scores, scores

    def untrained(self):
        return ToyEncoder(self.card, 0.3) if self.card.options.get("towers", True) else None


def load(card, weights, runtime):
    return ToyEncoder(card, card.options["skill"])
