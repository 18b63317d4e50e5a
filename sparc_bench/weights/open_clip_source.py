"""The configuration and the weights file of an open_clip model, from a card or the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from pydantic import Field

from sparc_bench.cards.bounds import Context, Pixels
from sparc_bench.cards.card import Strict
from sparc_bench.errors import UserError
from sparc_bench.files.json_text import json_value
from sparc_bench.weights import hub
from sparc_bench.weights.configuration import refuse_absurd
from sparc_bench.weights.open_clip_names import (
    CONFIG,
    named_file,
    refuse_unknown_architecture,
    refuse_without_configuration,
    split,
    unnamed_weights,
)
from sparc_bench.weights.weights_file import file_sha256

CONTEXT = 77
"""Tokens of a text where a configuration names no number."""

URL_CACHE = Path("~/.cache/clip")
"""Folder where open_clip and OpenAI's clip keep files downloaded by URL."""


class Options(Strict):
    """The [options] of a card with family = "open_clip"."""

    weights: str = Field(
        default="", description="model and weights: MODEL/TAG, MODEL/FILE, hf-hub:OWNER/NAME or local-dir:FOLDER"
    )
    model: str = Field(default="", description="an architecture of open_clip, hf-hub:OWNER/NAME or local-dir:FOLDER")
    pretrained: str = Field(default="", description="a tag that open_clip lists for the architecture, or a file")
    revision: str | None = Field(default=None, description="commit, branch or tag of a repository on the hub")
    sha256: str | None = Field(default=None, description="sha256 of the weights file")
    activation: Literal["quickgelu", "gelu"] | None = Field(
        default=None, description="activation of the training; needed where neither tag nor configuration states it"
    )
    patches: Literal["last", "value", "sclip", "clearclip"] | None = Field(
        default=None,
        description="last layer of the patch path: plain, MaskCLIP's value path, SCLIP's or ClearCLIP's attention; "
        "default: plain, where the architecture projects patches into the joint space",
    )
    size: Pixels | None = Field(
        default=None,
        description="input rows and columns, where they differ from the model's: positions of weights of the model's "
        "own size are interpolated, those of weights of this size are taken as they are",
    )
    context: Context | None = Field(
        default=None, description="tokens of a text, where they differ from the model's; positions as for size"
    )


@dataclass(frozen=True)
class OpenClipSource:
    """Configuration and weights file of an open_clip model.

    Attributes:
        name: name of the configuration, for errors.
        create_as: model name for open_clip.create_model.
        model_cfg: open_clip's configuration of the model.
        preprocess_cfg: open_clip's configuration of the preprocessing (the size is the model's).
        file: weights file.
        quick_gelu: whether both towers use QuickGELU (where the architecture has a choice).
        listed: True where the activation comes from open_clip's own list of tags, which is trusted.
        tokenizer: folder of the tokenizer; None where the configuration names it.
        own_context: tokens of a text by the configuration, where the card asks for another number.
    """

    name: str
    create_as: str
    model_cfg: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any]
    file: Path
    quick_gelu: bool
    listed: bool = False
    tokenizer: Path | None = None
    own_context: int | None = None


def find(options: Options, weights: Path | None, where: str) -> OpenClipSource:
    """The configuration and the weights file of a card.

    Args:
        options: the card's [options].
        weights: file or folder of the card's [weights] or of the command line; None without either.
        where: name of the card, for errors.

    Raises:
        UserError: an unknown architecture, tag or file, an activation that is stated nowhere or contradicted.
    """
    if options.weights and (options.model or options.pretrained):
        raise UserError(f"{where}: 'weights' stands for 'model' and 'pretrained': leave it out.")
    model, pretrained = _split(options.weights) if options.weights else (options.model, options.pretrained)
    if weights is not None and pretrained:
        raise UserError(f"{where}: both {weights} and '{pretrained}' are named as weights: leave one out.")
    if not model and weights is not None:
        refuse_without_configuration(weights)
        folder = weights if weights.is_dir() else weights.parent
        model = f"local-dir:{folder}"
    if model.startswith("local-dir:"):
        found = _of_folder(Path(model.removeprefix("local-dir:")), weights)
    elif model.startswith("hf-hub:"):
        found = _of_hub(model.removeprefix("hf-hub:"), weights, options)
    else:
        found = _of_architecture(model.replace("/", "-"), pretrained, weights, options, where)
    found = _with_context(_with_activation(found, options, where), options)
    if options.sha256 is not None and (digest := file_sha256(found.file)) != options.sha256:
        raise UserError(
            f"{found.file} has the sha256 {digest[:12]}..., but {where} says {options.sha256[:12]}...: restore the "
            "file, or mend the card."
        )
    return found


def has_both_forms(model_cfg: Mapping[str, Any]) -> bool:
    """Whether the same tensors fit the model with QuickGELU and with GELU."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if vision.get("timm_model_name"):
        return False
    return not isinstance(vision.get("layers"), list | tuple) or not text.get("hf_model_name")


def _split(word: str) -> tuple[str, str]:
    """The model and the tag or file of MODEL/TAG or MODEL/FILE; the model may contain a slash (ViT-B/32)."""
    if word.startswith(("hf-hub:", "local-dir:")):
        return word, ""
    return split(word)


def _of_architecture(arch: str, pretrained: str, weights: Path | None, options: Options, where: str) -> OpenClipSource:
    if not arch:
        raise UserError(f'{where} names no model: write [options] with model = "ViT-B-32" and pretrained = "openai".')
    refuse_unknown_architecture(arch)
    model_cfg = open_clip.get_model_config(arch)
    plain = OpenClipSource(
        name=arch,
        create_as=arch,
        model_cfg=model_cfg,
        preprocess_cfg=asdict(PreprocessCfg()),
        file=weights or Path(pretrained),
        quick_gelu=bool(model_cfg.get("quick_gelu")),
    )
    if weights is None and not pretrained:
        raise unnamed_weights(arch, where)
    tag = open_clip.get_pretrained_cfg(arch, pretrained) if weights is None else {}
    if tag:
        return replace(
            plain,
            name=f"{arch}/{pretrained}",
            preprocess_cfg=merge_preprocess_dict(plain.preprocess_cfg, tag),
            file=_tagged(tag, options.revision),
            quick_gelu=bool(tag.get("quick_gelu")),
            listed=True,
        )
    if weights is None:
        plain = replace(plain, file=named_file(arch, pretrained))
    if not plain.quick_gelu and options.activation is None and has_both_forms(model_cfg):
        named = f", or name the architecture {arch}-quickgelu" if f"{arch}-quickgelu" in open_clip.list_models() else ""
        raise UserError(
            f"{plain.file} does not say whether it was trained with QuickGELU or GELU, and the wrong one spoils every "
            f'number without an error: write activation = "quickgelu" (OpenAI, MetaCLIP, DFN) or "gelu" (LAION, '
            f"DataComp) into the [options] of a card{named}."
        )
    return plain


def _tagged(tag: Mapping[str, Any], revision: str | None) -> Path:
    """The file of a tag: from the hub's cache, else from open_clip's own cache, else downloaded from the hub."""
    repo, _, file = tag["hf_hub"].rpartition("/")
    names = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if file.endswith((".bin", ".pth")):
        names.insert(0, f"{file[:-4]}.safetensors")
    fetched = URL_CACHE.expanduser() / Path(tag["url"]).name if tag.get("url") else None
    here = next((path for name in names if (path := hub.find(repo, name, revision)) is not None), None)
    if here is None and fetched is not None and fetched.is_file():
        return fetched
    return here or _first(repo, names, revision)


def _first(repo: str, names: list[str], revision: str | None) -> Path:
    """The first of the named files that the repository has; raises the error of the first where it has none."""
    refused: list[UserError] = []
    for name in names:
        try:
            return hub.obtain(repo, name, revision, None)
        except UserError as error:
            refused.append(error)
    raise refused[0]


def _of_hub(repo: str, weights: Path | None, options: Options) -> OpenClipSource:
    config = hub.obtain(repo, CONFIG, options.revision, None)
    names = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    here = next((path for name in names if (path := hub.find(repo, name, options.revision)) is not None), None)
    file = weights or here or _first(repo, names, options.revision)
    return replace(_configured(config, file), name=f"hf-hub:{repo}", tokenizer=None)


def _of_folder(folder: Path, weights: Path | None) -> OpenClipSource:
    if not (folder / CONFIG).is_file():
        raise UserError(f"There is no {CONFIG} in {folder}: save the model with open_clip.push_to_hf_hub.save_for_hf.")
    if weights is not None and weights.is_file():
        return _configured(folder / CONFIG, weights)
    preferred = (HF_SAFE_WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", HF_WEIGHTS_NAME)
    file = next((folder / name for name in preferred if (folder / name).is_file()), folder)
    return _configured(folder / CONFIG, file)


def _configured(config: Path, file: Path) -> OpenClipSource:
    """The source of a folder with a configuration file."""
    try:
        values = json_value(config.read_bytes())
        model_cfg, preprocess_cfg = dict(values["model_cfg"]), dict(values.get("preprocess_cfg", {}))
        for table in ("vision_cfg", "text_cfg"):
            model_cfg[table] = dict(model_cfg[table])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{config} is no configuration of open_clip ({error}): take it from its authors anew."
        ) from None
    refuse_absurd(model_cfg, str(config), file)
    return OpenClipSource(
        name=str(config.parent),
        create_as=f"local-dir:{config.parent}",
        model_cfg=model_cfg,
        preprocess_cfg=merge_preprocess_dict(asdict(PreprocessCfg()), preprocess_cfg),
        file=file,
        quick_gelu=bool(model_cfg.get("quick_gelu")),
        tokenizer=config.parent,
    )


def _with_context(found: OpenClipSource, options: Options) -> OpenClipSource:
    """The source with the text length that the card asks for."""
    if options.context is None:
        return found
    text = dict(found.model_cfg["text_cfg"])
    own = text.get("context_length", CONTEXT)
    model_cfg = {**found.model_cfg, "text_cfg": {**text, "context_length": options.context}}
    return replace(found, model_cfg=model_cfg, own_context=own)


def _with_activation(found: OpenClipSource, options: Options, where: str) -> OpenClipSource:
    """The source with the activation of the card; raises UserError where the model's own statement contradicts it."""
    if options.activation is None:
        return found
    stated = options.activation == "quickgelu"
    own = "quickgelu" if found.quick_gelu else "gelu"
    if stated != found.quick_gelu and (found.listed or found.model_cfg.get("quick_gelu")):
        raise UserError(f'{where}: {found.name} was trained with activation = "{own}": write that, or leave it out.')
    return replace(found, quick_gelu=stated)
