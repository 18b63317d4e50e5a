"""A random checkpoint of Mini-CLIP's shape, for tests on machines that lack the trained one."""

from pathlib import Path

import torch

WORDS = ("<pad>", "<bos>", "<eos>", "<unk>", "a", "photo", "of", "star", "circle", "triangle", "square", "red", "blue")


def write(path: Path, towers, seed: int = 0) -> Path:
    """`towers` is the plug-in's; weights and running statistics are random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = towers(len(WORDS), 32).state_dict()
        state = {
            name: torch.rand_like(value) + 0.5
            if name.endswith("running_var")
            else value + 0.1 * torch.randn_like(value)
            for name, value in state.items()
            if value.is_floating_point()
        } | {name: value for name, value in state.items() if not value.is_floating_point()}
    torch.save(
        {"model": state, "tokenizer": {"max_len": 32, "stoi": {word: at for at, word in enumerate(WORDS)}}}, path
    )
    return path
