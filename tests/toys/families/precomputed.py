import json
from pathlib import Path

import numpy as np

from tests.toys.encoders import noise
from tests.toys.model_inputs import TEXTS, cropped, inputs, items

OPENS_IMAGES = False


def tiny(folder: Path) -> str:
    names = [*(item.id for item in items(40)), cropped()[1].id, *inputs().views]
    strings = list(dict.fromkeys((*TEXTS, *inputs().texts)))
    np.save(folder / "image_embeddings.npy", np.stack([noise(name, 16) for name in names]).astype(np.float32))
    np.save(folder / "text_embeddings.npy", np.stack([noise(text, 16) for text in strings]).astype(np.float32))
    (folder / "inputs.json").write_text(json.dumps({"image_ids": names, "texts": strings}))
    return f"precomputed:{folder}"
