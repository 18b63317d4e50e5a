from pathlib import Path

from sparc_bench.cards import discovery
from tests.plugins import tiny_mini_clip

MINI_CLIP = Path(__file__).parents[2] / "plugins" / "mini_clip.py"


def tiny(folder: Path) -> str:
    return f"python:{MINI_CLIP}:{tiny_mini_clip.write(folder / 'tiny.pt', discovery.add_plugin(MINI_CLIP).towers)}"
