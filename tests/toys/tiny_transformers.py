"""Small random checkpoints in transformers' layout, written as their owners publish them; no network, no weights."""

import json
import string
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CONTEXT = 16
TEXTS = ["a photo of a cat", "A Photo of a CAT!", "two dogs, one red ball.", "", "zebra " * 30, "42"]

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = TOWER | {"image_size": 32, "patch_size": 8}
TEXT = TOWER | {"max_position_embeddings": CONTEXT}

CLIP_PIXELS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_normalize": True,
    "do_rescale": True,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIGLIP_PIXELS = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "do_normalize": True,
    "do_rescale": True,
    "resample": 3,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
NAFLEX_PIXELS = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 20, "resample": 2}


def photos(count: int = 5) -> list[Image.Image]:
    """Different pictures of different shapes."""
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (60, 40), (32, 32), (90, 37), (21, 33)]
    return [
        Image.fromarray(rng.integers(0, 256, (*shapes[index % 5], 3), dtype=np.uint8)).resize(shapes[index % 5][::-1])
        for index in range(count)
    ]


def write(folder: Path, **files: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def save(architecture: str, config: transformers.PretrainedConfig, folder: Path) -> Path:
    """A model whose weights make every vector different, beside its other files."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


def clip(folder: Path, eos_in_config: int | None = None, pixels: dict = CLIP_PIXELS, **vision: object) -> Path:
    vocabulary = clip_tokenizer(folder)
    end = vocabulary["<|endoftext|>"]
    text = TEXT | {
        "vocab_size": len(vocabulary),
        "bos_token_id": end - 1,
        "eos_token_id": eos_in_config or end,
        "pad_token_id": end,
    }
    write(folder, preprocessor_config=pixels)
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION | vision, projection_dim=24)
    return save("CLIPModel", config, folder)


def siglip(folder: Path, **vision: object) -> Path:
    size = siglip_tokenizer(folder)
    write(folder, preprocessor_config=SIGLIP_PIXELS)
    text = TEXT | {"vocab_size": size, "projection_size": 32}
    return save("SiglipModel", transformers.SiglipConfig(text_config=text, vision_config=VISION | vision), folder)


def siglip2_fixed(folder: Path) -> Path:
    """A SigLIP 2 of fixed size: the architecture of SigLIP with the tokenizer of Gemma."""
    text = TEXT | {"vocab_size": gemma_tokenizer(folder), "projection_size": 32}
    write(folder, preprocessor_config=SIGLIP_PIXELS)
    return save("SiglipModel", transformers.SiglipConfig(text_config=text, vision_config=VISION), folder)


def siglip2_naflex(folder: Path) -> Path:
    text = TEXT | {"vocab_size": gemma_tokenizer(folder), "projection_size": 32}
    write(folder, preprocessor_config=NAFLEX_PIXELS)
    vision = TOWER | {"patch_size": 8, "num_patches": 16}
    return save("Siglip2Model", transformers.Siglip2Config(text_config=text, vision_config=vision), folder)


def chinese_clip(folder: Path) -> Path:
    text = TEXT | {"vocab_size": bert_tokenizer(folder)}
    squash = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    write(folder, preprocessor_config=CLIP_PIXELS | squash | {"image_processor_type": "ChineseCLIPImageProcessor"})
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return save("ChineseCLIPModel", config, folder)


def altclip(folder: Path) -> Path:
    text = TEXT | {"vocab_size": roberta_tokenizer(folder), "project_dim": 32, "pad_token_id": 1}
    write(folder, preprocessor_config=CLIP_PIXELS)
    text["max_position_embeddings"] += 2  # positions of RoBERTa begin behind the padding's
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return save("AltCLIPModel", config, folder)


def metaclip_2(folder: Path) -> Path:
    text = TEXT | {"vocab_size": roberta_tokenizer(folder), "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    write(folder, preprocessor_config=CLIP_PIXELS)
    config = transformers.MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24)
    return save("MetaClip2Model", config, folder)


def group_vit(folder: Path) -> Path:
    """An architecture without a layout of its own: global vectors only, and one image size."""
    vocabulary = clip_tokenizer(folder)
    text = TEXT | {"vocab_size": len(vocabulary), "eos_token_id": vocabulary["<|endoftext|>"]}
    write(folder, preprocessor_config=CLIP_PIXELS)
    stages = {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 2], "hidden_size": 32}
    vision = {"image_size": 32, "patch_size": 8, "num_attention_heads": 4, "intermediate_size": 48, **stages}
    config = transformers.GroupViTConfig(
        text_config=text, vision_config=vision, projection_dim=24, projection_intermediate_dim=48
    )
    return save("GroupViTModel", config, folder)


def clip_tokenizer(folder: Path) -> dict[str, int]:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    merges = ["c a", "ca t</w>", "p h", "o t", "d o"]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    write(
        folder,
        vocab=vocabulary,
        tokenizer_config={
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": CONTEXT,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return vocabulary


def siglip_tokenizer(folder: Path) -> int:
    """Sentence pieces of lower case letters, with the special ids of c4_en."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["a photo of a cat", "two dogs one red ball", "zebra", *string.ascii_lowercase, *string.digits]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write(
        folder,
        tokenizer_config={
            "tokenizer_class": "SiglipTokenizer",
            "model_max_length": CONTEXT,
            "model_input_names": ["input_ids"],
            "do_lower_case": True,
            **special,
        },
        special_tokens_map=special,
    )
    return sentencepiece.SentencePieceProcessor(str(folder / "spiece.model")).get_piece_size()


def gemma_tokenizer(folder: Path) -> int:
    """Gemma's, as SigLIP 2's checkpoints have it: case is kept, an EOS behind, no length, no mask."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = {
        piece: index for index, piece in enumerate([*special, "▁", *string.ascii_letters, *string.digits, *"!,."])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(
        folder,
        tokenizer_config={
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": False,
            "add_eos_token": True,
            "padding_side": "right",
            "model_max_length": 1000000000000000019884624838656,
            "model_input_names": ["input_ids"],
            **{f"{each[1:-1]}_token": each for each in special},
        },
    )
    return tokenizer.get_vocab_size()


def bert_tokenizer(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + each for each in letters),
        "cat",
        "photo",
    ]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    write(folder, tokenizer_config={"tokenizer_class": "BertTokenizer", "model_max_length": CONTEXT})
    return len(pieces)


def roberta_tokenizer(folder: Path) -> int:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, "▁", *string.ascii_letters, *string.digits, *"!,.", "▁cat", "<mask>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(index > 3)) for index, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in [*special, "<mask>"]])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(
        folder,
        tokenizer_config={
            "tokenizer_class": "XLMRobertaTokenizer",
            "model_max_length": CONTEXT,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
    )
    return len(pieces)


KINDS = (
    *("clip", "siglip", "siglip2_fixed", "siglip2_naflex", "chinese_clip", "altclip", "metaclip_2"),
    "group_vit",
)


class Folders:
    """Every kind, written once when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, kind: str) -> Path:
        folder = self._root / kind
        return folder if folder.exists() else globals()[kind](folder)
