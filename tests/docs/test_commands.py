"""The rules by which commands of pages are read find what is wrong."""

import pytest

from sparc_bench.cli.mistakes import UsageError
from tests.docs.commands import is_mistake, refuse_wrong_line, refuse_wrong_words, shown, why_not_run
from tests.docs.pages import Block, Page


def test_commands_of_blocks():
    lines = shown(
        Block("sh", "# a comment\nsparc-bench list tasks   # all\ntorchrun -m sparc_bench train x\nmake test\n", 3)
    )
    assert [command.words for command in lines] == [["list", "tasks"], ["train", "x"], []]
    first, second = shown(
        Block("console", "$ sparc-bench show a \\\n    --out b\nWrote b.\n$ sparc-bench list tasks\n", 1)
    )
    assert (first.words, first.output) == (["show", "a", "--out", "b"], "Wrote b.\n")
    assert not second.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("eval scenes_clip --tusk scenes_retrieval", UsageError),
        ("evil scenes_clip", KeyError),
        ("eval scenes_clp --task scenes_retrieval", AssertionError),
        ("eval scenes_clip --task scenes_retrievals", AssertionError),
        ("eval scenes_clip --suite scene", AssertionError),
        ("eval scenes_clip --limit many", UsageError),
        ("eval opn_clip:ViT-B-32/openai --suite scenes", AssertionError),
        ("cost --objectives clip,spark", AssertionError),
        ("show nothing_of_this_name", AssertionError),
    ],
)
def test_wrong_words_are_found(line, error, tmp_path):
    with pytest.raises(error):
        refuse_wrong_words(line.split(), tmp_path)
    assert is_mistake(line.split(), tmp_path)


@pytest.mark.parametrize("line", ["make dinner", 'pip install "sparc-bench[gpu]"', "python -m sparc_bench.none", "ls"])
def test_wrong_lines_are_found(line):
    with pytest.raises(AssertionError):
        refuse_wrong_line(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("train scenes_clip", "trains"),
        ("eval MODEL --suite scenes", "placeholder"),
        ("eval scenes_clip --task cifar10", "needs data from elsewhere"),
        ("eval scenes_clip --suite photos", "needs data from elsewhere"),
        ("eval scenes_gloria --suite scenes", "weights"),
        ("eval open_clip:ViT-B-32/openai --suite scenes", "weights"),
        ("eval scenes_clip --suite scenes", ""),
        ("compare scenes_clip scenes_sparc", ""),
    ],
)
def test_what_is_only_read(line, reason, tmp_path):
    found = why_not_run(line.split(), tmp_path)
    assert reason in found
    assert bool(reason) == bool(found)


def test_parts_of_a_page(tmp_path):
    page = Page(tmp_path / "page.md")
    page.path.write_text(
        "# A `title`: one\n\n[x](a.md#b) `sparc-bench\nlist tasks`\n\n```toml\n# card.toml\na = 1\n```\n"
    )
    assert page.anchors == {"a-title-one"}
    assert (page.links, page.inline_code) == (["a.md#b"], ["title", "sparc-bench list tasks"])
    assert [(block.language, block.title, block.line) for block in page.blocks] == [("toml", "card.toml", 6)]
