"""The pages for people, taken apart: fenced blocks, commands in the text, links, headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: after the opening fence.
        text: between the fences.
        line: of the opening fence.
        title: of a Python or TOML block, the file that its first line names in a comment (`# my_task.toml`); "".
    """

    language: str
    text: str
    line: int

    @property
    def title(self) -> str:
        found = re.match(r"# (\w+\.\w+)", self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Page:
    """A Markdown file of this project that a person reads."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(found[1], found[2], self.text.count("\n", 0, found.start()) + 1)
            for found in _FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def inline_code(self) -> list[str]:
        """What stands between single backticks in the text; a line break there counts as a blank."""
        return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def anchors(self) -> set[str]:
        """What `#...` may name: the headings, as sites that host a repository spell them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


README = Page(ROOT / "README.md")
PAGES = [README, *map(Page, sorted((ROOT / "docs").glob("*.md")))]
"""The README and every page of docs/."""
