from pathlib import Path

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.model import build_model


def tiny(folder: Path) -> str:
    recipe = discovery.recipe("scenes_sparc")
    values = recipe.model_dump(exclude={"weights"}) | {"name": "tiny", "objective_options": {"dim": 16}}
    values["image"] |= {"width": 24, "depth": 1, "heads": 2}
    values["text"] |= {"width": 16, "depth": 1, "heads": 2, "tokenizer": "open_clip"}
    small = Recipe.model_validate(values)
    meta = checkpoint.Meta(small, 0, small.steps, "", {"cat": 3})
    model = build_model(small, meta.architecture.tokenizer(""), 0)
    checkpoint.write_checkpoint(checkpoint.model_tensors(model), meta, folder / "model.safetensors")
    return f"own:{folder}"
