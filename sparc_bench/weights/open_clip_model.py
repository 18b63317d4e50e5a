"""An open_clip model with its weights: built without the network, loaded without running code from the file."""

from __future__ import annotations

import contextlib
import logging
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict, load_big_vision_weights
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from sparc_bench.errors import UserError, quoted, reason
from sparc_bench.weights import hub
from sparc_bench.weights.open_clip_source import CONTEXT, OpenClipSource, has_both_forms
from sparc_bench.weights.weights_file import read_tensors, refuse_escaping_members, refuse_whole_numbers

TORCHSCRIPT_ONLY = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's TorchScript archives hold among the tensors."""


def build(source: OpenClipSource, size: int | None) -> Any:  # noqa: ANN401 - one of open_clip's classes
    """The model with its weights in float32 on the CPU, ready to encode; `model.visual.preprocess_cfg` is complete.

    Args:
        source: configuration and weights.
        size: input rows and columns; None for the model's own.

    Raises:
        UserError: a damaged or unsafe file, weights of another architecture or with another activation, a missing
            library.
    """
    model = _empty(source, size)
    if source.file.suffix in (".npz", ".npy"):
        _load_big_vision(model, source)
    else:
        _load(model, source, size)
    if size is not None and hasattr(model.visual, "set_input_size"):
        model.visual.set_input_size(size)  # as open_clip does: a timm tower is resized after its weights are loaded
    model.visual.preprocess_cfg = {**source.preprocess_cfg, "size": size or model.visual.image_size}
    return model.eval().requires_grad_(False)


def _empty(source: OpenClipSource, size: int | None) -> Any:  # noqa: ANN401
    """The architecture with random weights; the global random state stays as it is."""
    text_cfg = dict(source.model_cfg["text_cfg"])
    if text_cfg.get("hf_model_name"):
        text_cfg |= {"hf_model_name": _text_config(text_cfg["hf_model_name"]), "hf_model_pretrained": False}
    native = not source.model_cfg["vision_cfg"].get("timm_model_name") and not _is_resnet(source.model_cfg)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            return open_clip.create_model(
                source.create_as,
                load_weights=False,
                pretrained_text=False,
                force_image_size=size if native else None,
                quick_gelu=source.quick_gelu,
                text_cfg=text_cfg,
            )
    except UserError:
        raise
    except Exception as error:  # a third-party configuration can raise anything
        if "pip install transformers" in str(error):
            raise UserError(
                f"The text tower of {source.name} is of transformers: run pip install 'sparc-bench[hf]'."
            ) from None
        raise UserError(
            f"open_clip {open_clip.__version__} cannot build {source.name} ({reason(error)}): mend its configuration, "
            "or run pip install -U open_clip_torch timm."
        ) from error


def _text_config(named: str) -> str:
    """The folder with the configuration of a text tower of transformers."""
    return named if Path(named).is_dir() else str(hub.obtain(named, "config.json", None, None).parent)


def _is_resnet(model_cfg: Mapping[str, Any]) -> bool:
    return isinstance(model_cfg["vision_cfg"].get("layers"), list | tuple)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress open_clip's warning about random weights, since the weights are loaded afterwards."""
    root, before = logging.getLogger(), logging.root.manager.disable
    handler = logging.NullHandler()  # keeps the library's first message from configuring the root logger
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


def _load(model: nn.Module, source: OpenClipSource, size: int | None) -> None:
    """Load the weights, with the library's own conversions in the order of `open_clip.load_checkpoint`."""
    tensors = read_tensors(source.file)
    own = model.state_dict()
    recomputed = {name.removeprefix("text.") for name, _ in model.named_buffers()} - own.keys()
    for name in (*TORCHSCRIPT_ONLY, *recomputed):  # stored by TorchScript archives only
        tensors.pop(name, None)
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        raise UserError(f"{source.file} is a checkpoint of transformers: name its folder as hf:{source.file.parent}.")
    tensors = convert_state_dict(model, tensors)
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):
        if name in tensors and name in own:
            if tensors[name].numel() != own[name].numel():
                raise UserError(
                    f"{source.file}: '{name}' holds {tensors[name].numel()} values instead of {own[name].numel()}: "
                    "take the weights from their authors anew."
                )
            tensors[name] = tensors[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in tensors:
        tensors["logit_bias"] = torch.zeros_like(own["logit_bias"])
    tensors.pop("text.transformer.embeddings.position_ids", None)
    for name in own.keys() - tensors.keys():
        if name.endswith("num_batches_tracked"):  # missing in files of old torch versions, unused in evaluation
            tensors[name] = own[name]
    _refuse_difference(own, tensors, source)
    _refuse_other_positions(own, tensors, source, size)
    refuse_whole_numbers(source.file, own, tensors)
    if not source.listed and not source.quick_gelu and has_both_forms(source.model_cfg) and is_openai(tensors):
        raise UserError(
            f"{source.file} looks like OpenAI's weights (every tensor exact in fp16, logit scale ln 100), which were "
            'trained with QuickGELU: write activation = "quickgelu" into the [options] of a card.'
        )
    resize_pos_embed(tensors, model)
    if "positional_embedding" in own or "text.positional_embedding" in own:
        resize_text_pos_embed(tensors, model)
    model.load_state_dict(tensors)


def is_openai(tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights look like OpenAI's: logit scale ln 100, and all parameters exact in fp16."""
    scale = tensors.get("logit_scale")
    if scale is None or not scale.numel():
        return False
    if abs(scale.float().max().item() - math.log(100)) > 0.004:  # above half the spacing of fp16 here
        return False
    parameters = (
        tensor
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and name != "logit_scale" and not name.endswith(("running_mean", "running_var"))
    )
    return all(torch.equal(tensor.float(), tensor.to(torch.float16).float()) for tensor in parameters)


def _load_big_vision(model: nn.Module, source: OpenClipSource) -> None:
    """Load a SigLIP from big_vision's arrays, with the library's own conversion; nothing is unpickled."""
    refuse_escaping_members(source.file)
    try:
        load_big_vision_weights(model, str(source.file))
    except (KeyError, AttributeError, AssertionError, RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{source.file} holds no big_vision weights of {source.name} ({error}): name its architecture as model, "
            "or copy the file again."
        ) from None
    odd = next((name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()), None)
    if odd is not None:
        raise UserError(f"{source.file} fills '{odd}' with NaN or infinite values: copy the file again.")


def _refuse_difference(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: OpenClipSource) -> None:
    """Raise UserError for the first tensor that differs between file and architecture (positions may be resized)."""
    first = next((name for name in own if not _fits(name, own[name], tensors.get(name))), None)
    if first is None:
        first = next((name for name in tensors if name not in own), None)
    if first is None:
        return
    here = f"is {_shape(tensors[first])}" if first in tensors else "is missing"
    there = f"has {_shape(own[first])}" if first in own else "has no such tensor"
    fitting = [name for name in fitting_architectures(tensors) if name != source.create_as]
    change = f"its shapes are those of {' and '.join(fitting)}: name one of these" if fitting else "name the right one"
    raise UserError(
        f"{source.file} holds another architecture than {source.name}: its {quoted(first)} {here} where {source.name} "
        f"{there}; {change} as model."
    )


def _refuse_other_positions(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: OpenClipSource, size: int | None
) -> None:
    """Raise UserError for weights of another input size or text length, unless the card asks to interpolate them."""
    vision, text = source.model_cfg["vision_cfg"], source.model_cfg["text_cfg"]
    positions = tensors.get("visual.positional_embedding")
    if positions is not None and positions.ndim == 2 and len(positions) != len(own["visual.positional_embedding"]):
        patch, usual = vision.get("patch_size", 16), vision.get("image_size", 224)
        there = math.isqrt(len(positions) - 1) * patch
        if size is None or there != usual // patch * patch:
            wanted = f"size = {size}" if size is not None else source.name
            fitting = [name for name in fitting_architectures(tensors) if name != source.create_as]
            named = f"name {' or '.join(fitting)} as model, or " if fitting else ""
            here = size or usual
            raise UserError(
                f"{source.file} is of {there} x {there} pixels and {wanted} of {here} x {here}, so that its "
                f"positions would be interpolated: {named}write size = {there} into the [options] of a card."
            )
    for name in ("positional_embedding", "text.positional_embedding"):
        if name in tensors and name in own and len(tensors[name]) != len(own[name]):
            length = text.get("context_length", CONTEXT)
            there = length + len(tensors[name]) - len(own[name])
            if there != source.own_context:
                raise UserError(
                    f"{source.file} is of texts of {there} tokens and {source.name} of {length}, so that its positions "
                    f"would be interpolated: write context = {there} into the [options] of a card."
                )


def _fits(name: str, own: Tensor, given: Tensor | None) -> bool:
    if given is None:
        return False
    if name == "visual.positional_embedding" and given.ndim == 2:
        return given.shape[1] == own.shape[1] and math.isqrt(len(given) - 1) ** 2 == len(given) - 1
    if name in ("positional_embedding", "text.positional_embedding") and given.ndim == 2:
        return given.shape[1] == own.shape[1]
    return given.shape == own.shape


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def fitting_architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of open_clip's architectures (without timm and transformers towers) with the main shapes of the weights."""
    found = _main_shapes(tensors)
    listed = (name for name in open_clip.list_models() if not name.endswith("-quickgelu"))
    return [name for name in listed if found is not None and found == _configured_shapes(name)]


def _main_shapes(tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Image width, patch, layers, positions, text width, layers, vocabulary, joint width, whether it has a decoder."""
    text = "text." if "text.text_projection" in tensors else ""
    names = ("visual.conv1.weight", "visual.positional_embedding", f"{text}text_projection")
    conv, positions, projection = (tensors.get(name) for name in names)
    words = tensors.get(f"{text}token_embedding.weight")
    if conv is None or positions is None or projection is None or words is None:
        return None
    layers = [
        len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})
        for prefix in ("visual.transformer.resblocks.", f"{text}transformer.resblocks.")
    ]
    image = (conv.shape[0], conv.shape[-1], layers[0], len(positions))
    decoder = any(name.startswith("text_decoder.") for name in tensors)
    return (*image, words.shape[1], layers[1], len(words), projection.shape[-1], decoder)


def _configured_shapes(name: str) -> tuple[int, ...] | None:
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name") or _is_resnet(config) or text.get("hf_model_name"):
        return None
    patch, size = vision["patch_size"], vision["image_size"]
    image = (vision["width"], patch, vision["layers"], (size // patch) ** 2 + 1)
    words = text.get("vocab_size", 49408)
    return (*image, text["width"], text["layers"], words, config["embed_dim"], "multimodal_cfg" in config)
