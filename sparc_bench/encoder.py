"""The encoder seam: a model as a task sees it.

A new model is one Python file: a class derived from `ImageTextEncoder` that turns opened images and texts into vectors,
and `load(card, weights, runtime)`, by which it is found. Resizing, cropping, colours, case, padding and precision are
the model's own and stay inside it. A complete one, which knows three colours and nothing else:

    import torch
    from torchvision.transforms.functional import pil_to_tensor

    from sparc_bench.encoder import ImageTextEncoder
    from sparc_bench.features import ImageFeatures, TextFeatures


    def pixels(view):
        image = view.open()
        columns_rows = view.size[::-1] if view.size else (8, 8)
        shown = view.in_original((0.0, 0.0, *map(float, image.size)))
        return pil_to_tensor(image.resize(columns_rows)) / 255, shown


    class MeanColour(ImageTextEncoder):
        def __init__(self, card, weights, runtime):
            super().__init__(card, runtime, pixels, weights_hash="no weights")

        def encode_pixels(self, pixels_B3HW, need):
            return ImageFeatures((), pixels_B3HW.mean((2, 3)))

        def encode_texts(self, texts, need):
            named = [[colour in text for colour in ("red", "green", "blue")] for text in texts]
            return TextFeatures(tuple(texts), torch.tensor(named).float())


    load = MeanColour

`sparc-bench eval python:mean_colour.py --task TASK` evaluates it. `sparc-bench verify python:mean_colour.py` probes it,
and would rightly not trust this one: the vector of a text that names no colour is 0.
A family that ships with the package is such a file in `sparc_bench/encoders/`, with TITLE, SOURCE and VERSION; the
smallest model of it, for the tests, is `tests/toys/families/NAME.py`.

Shapes: N images, M texts, K branches, P patches, L text tokens, D joint width, R regions.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError
from sparc_bench.features import Detections, ImageFeatures, Regions, TextFeatures
from sparc_bench.images.decoding import KILLED_WORKER, Preprocess, is_killed_worker, pixel_batches
from sparc_bench.images.item import Box
from sparc_bench.images.view import View
from sparc_bench.metrics import cosine


@dataclass(frozen=True)
class Runtime:
    """Settings of an encoder's run: torch device, dtype of the forward pass, images per batch, loader workers."""

    device: str = "cpu"
    precision: str = "float32"
    batch_size: int = 256
    workers: int = 0


GIVES = frozenset({"image", "text", "global", "branches", "patches", "tokens", "detect", "propose", "generate"})
"""Values that `Encoder.gives` can hold."""


class Encoder(Protocol):
    """Interface of a model for all tasks; preprocessing, prompt padding, precision ... are the model's own.

    A class that names Encoder as its base has the defaults below.

    Attributes:
        card: the model's card.
        gives: inputs, features and further abilities of the model, of `GIVES`.
        paths: patch path, in reporting order -> whether a loss trained it. The first is the default of `similarity` and
            `dense_scores`.
        prompt_ensemble: average of a class's prompts, over embeddings or scores.
        weights_hash: sha256 of the weights, for the record and the cache.
        precision: dtype of the forward pass, for the record.
        device: torch device of the model.
        runtime: device, precision, images per batch, loader workers.
        identity: settings beside the weights that change a vector (options, preprocessing, version of the family's
            code), the key of the feature cache; None: nothing is cached.
        code_hash: sha256 of the plug-in that the encoder comes from; None for one that ships with the package.
        recipe: recipe that trained the model here.
        train_words: word -> number of training captions that contain it; None where unknown.
        opens_images: whether images are opened: stored vectors need none.
        token_path: patch path whose patches the loss contrasted with the tokens of captions; None if it did not.
        logit_scale: trained factor of the cosines; None where the model has none.
        trunk: frozen image trunk that the model's image features are computed from, as an encoder of its own, so that
            models with the same trunk share its cached patches; None without one.
    """

    card: ModelCard
    gives: frozenset[str]
    paths: Mapping[str, bool]
    prompt_ensemble: Literal["embeddings", "scores"]
    weights_hash: str
    precision: str
    device: torch.device
    runtime: Runtime = Runtime()
    identity: Mapping[str, Any] | None = None
    code_hash: str | None = None
    recipe: Recipe | None = None
    train_words: Mapping[str, int] | None = None
    opens_images: bool = True
    token_path: str | None = None
    logit_scale: float | None = None
    trunk: Encoder | None = None

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """Pixels of one view as the family batches them, and the area of the original image that they show.

        Raises:
            UserError: the model does not take this input size, or the image cannot be read.
        """
        ...

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of groups of views, batch by batch, in order.

        Groups are taken one by one as they are needed. A batch has at most `runtime.batch_size` views and never crosses
        the end of a group, so that what a batch holds does not depend on which groups came before. An empty group gives
        nothing.

        Args:
            groups: groups of views.
            need: a subset of {"global", "branches", "patches"}; all others stay None.
        """
        ...

    def images(self, views: Sequence[View], need: frozenset[str]) -> ImageFeatures:
        """Features of views in one piece: `stream`, joined; `need` as there."""
        parts = list(self.stream([views], need))
        if not parts:
            raise RuntimeError("no images to encode")
        return ImageFeatures.concat(parts)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts; `need` is a subset of {"global", "tokens"}, all others stay None."""
        ...

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores by the model's own rule, (image-to-text NM, text-to-image NM); with regions of `path` both are RM."""
        ...

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Scores (N, M, rows, columns) of every patch for every text, by the model's own rule."""
        ...

    def token_maps(self, images: ImageFeatures, words: Sequence[str], path: str | None = None) -> Tensor:  # noqa: ARG002
        """Scores (N, words, rows, columns) of patches for the words of one caption, read as a whole.

        By the model's own rule for `token_path`, the default; for any other path, and where no loss contrasts tokens
        with patches, the plain cosine of the path's patches with the tokens. NaN for a word that has no token, or none
        within the model's context.

        Raises:
            UserError: the model has no token vectors, or it is not known which of them are a word's.
        """
        raise UserError(
            f"{self.card.name} gives no map of a word within a caption: choose a task that reads each word alone "
            '(map = "text").'
        )

    def detect(self, views: Sequence[View], texts: TextFeatures) -> Detections:  # noqa: ARG002
        """Detected objects of the kinds that the texts name; only where `gives` has "detect"."""
        self._lacks("detect")

    def propose(self, views: Sequence[View]) -> Detections:  # noqa: ARG002
        """Boxes of objects of any kind (`text_index_R` is 0); only where `gives` has "propose"."""
        self._lacks("propose")

    def generate(self, views: Sequence[View], prompt: str) -> list[str]:  # noqa: ARG002
        """A text for each view that answers or continues the prompt; only where `gives` has "generate"."""
        self._lacks("generate")

    def on_trunk(self, trunk: Encoder) -> Encoder:  # noqa: ARG002
        """The model with the same trunk by other means, as from a cache; only where `trunk` is there."""
        self._lacks("on_trunk")

    def untrained(self) -> Encoder | None:
        """The model with its initial weights, for the reference row `untrained`; None where they are not known."""
        return None

    def _lacks(self, part: str) -> NoReturn:
        raise RuntimeError(f"{self.card.name} has no {part}")


def recut(batches: Iterable[ImageFeatures], most: int) -> Iterator[ImageFeatures]:
    """Features in batches of at most `most` images, none of which joins two batches."""
    for features in batches:
        for start in range(0, len(features), most):
            yield features[start : start + most]


def pairwise(encoder: Encoder) -> bool:
    """Whether the model scores pairs of an image and a text by more than one vector each."""
    return encoder.prompt_ensemble == "scores" or "global" not in encoder.gives


def image_need(encoder: Encoder) -> frozenset[str]:
    """Image features that `similarity` uses: the global vector, or all features of a pairwise model."""
    return frozenset({"global", "branches", "patches"} & encoder.gives) if pairwise(encoder) else frozenset({"global"})


def text_need(encoder: Encoder) -> frozenset[str]:
    """Text features that `similarity` uses: the global vector, and the tokens for a pairwise model."""
    return frozenset({"global", "tokens"} if pairwise(encoder) and "tokens" in encoder.gives else {"global"})


TEXTS_PER_IMAGE = 4
"""Texts per batch, as a multiple of the images per batch."""


class ImageTextEncoder(Encoder):
    """Base of encoder families: batches, precision and cosine scores (see `sparc_bench.encoder.Encoder`).

    A family's class calls `__init__`, and overrides `encode_pixels` and `encode_texts`; a model with another score than
    the cosine overrides `similarity` and `dense_scores`. `preprocess` is a function from one view to pixels, picklable
    for worker processes.
    """

    gives: frozenset[str] = frozenset({"image", "text", "global"})
    paths: Mapping[str, bool] = {}
    prompt_ensemble: Literal["embeddings", "scores"] = "embeddings"

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        preprocess: Preprocess,
        weights_hash: str,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.card, self.runtime, self._open, self.weights_hash = card, runtime, preprocess, weights_hash
        self.identity = identity
        self.precision = runtime.precision
        self.device = torch.device(runtime.device)

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Features `need` of a batch of pixels (on the device); ids and areas are added by the caller."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features `need` of a batch of texts."""
        raise NotImplementedError

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """Pixels of one view as the family batches them, and the area of the original image that they show."""
        return self._open(view)

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of groups of views in float32, batch by batch, in order; workers decode the next ones."""
        decoded = pixel_batches(self._open, groups, self.runtime.batch_size, self.runtime.workers, self.device)
        try:
            for views, pixels, area_B4 in decoded:
                with self._forward():
                    features = self.encode_pixels(pixels, need)
                ids = tuple(view.id for view in views)
                yield dataclasses.replace(in_float32(features), ids=ids, area_N4=area_B4)
        except RuntimeError as error:
            if not is_killed_worker(error):
                raise
            raise UserError(KILLED_WORKER) from error
        finally:
            decoded.close()

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts in float32."""
        at_once = TEXTS_PER_IMAGE * self.runtime.batch_size
        parts = []
        for start in range(0, len(texts), at_once):
            with self._forward():
                parts.append(self.encode_texts(texts[start : start + at_once], need))
        return TextFeatures.concat([_wordsin_float32(part) for part in parts])

    @torch.inference_mode()
    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine scores, for both directions alike: NM, or RM of regions (weighted sums of the path's patches)."""
        scores = cosine.similarity(images, texts, regions, path or next(iter(self.paths), ""))
        return scores, scores

    @torch.inference_mode()
    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Cosine scores of every patch with the texts: (N, M, rows, columns)."""
        return cosine.dense_scores(images, texts, path or next(iter(self.paths)))

    @contextlib.contextmanager
    def _forward(self) -> Iterator[None]:
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            yield


def in_float32(features: ImageFeatures) -> ImageFeatures:
    """The features in float32, contiguous."""
    return dataclasses.replace(
        features,
        global_ND=_float(features.global_ND),
        branches_NKD=_float(features.branches_NKD),
        patches={path: patches.float().contiguous() for path, patches in features.patches.items()},
    )


def _wordsin_float32(features: TextFeatures) -> TextFeatures:
    return dataclasses.replace(features, global_MD=_float(features.global_MD), tokens_MLD=_float(features.tokens_MLD))


def _float(vectors: Tensor | None) -> Tensor | None:
    # contiguous, like vectors from the cache's files, so that sums are equal to the last bit
    return None if vectors is None else vectors.float().contiguous()
