"""Every card and module can be listed and shown, and what is shown says what a person would ask."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cli.app import main
from sparc_bench.cli.listing import KINDS, suites


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_everything(kind, capsys):
    assert main(["list", kind]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert set(discovery.names(kind)) <= set(first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (["--family", "segmentation"], lambda card: card.family == "segmentation"),
        (["--suite", "imagenet"], lambda card: "imagenet" in card.suites),
        (["--data", "scenes1"], lambda card: card.dataset == "scenes1"),
        (["--data", "image_folder"], lambda card: card.dataset == "image_folder"),
        (
            ["--family", "regions", "--suite", "scenes", "--data", "scenes1"],
            lambda card: card.family == "regions" and "scenes" in card.suites,
        ),
    ],
)
def test_list_tasks_keeps_those_that_fit_all_options(options, fits, capsys):
    assert main(["list", "tasks", *options]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line[:1].strip()]
    cards = [discovery.task(name) for name in discovery.names("tasks")]
    assert first == [card.name for card in cards if fits(card)]
    assert 0 < len(first) < len(cards)


@pytest.mark.slow
def test_list_tasks_knows_the_data_sets_of_the_catalogue(capsys):
    assert main(["list", "tasks", "--data", "pets"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["pets"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_show_everything(kind, capsys):
    for name in discovery.names(kind):
        assert main(["show", name]) == 0, name
        assert capsys.readouterr().out.startswith(f"{name} (")


def test_show_of_a_module_gives_options_with_their_docs(capsys):
    assert main(["show", "sparc"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("threshold"))
    assert row.split()[:2] == ["threshold", "none"]
    assert "sigma" in row
    assert "arXiv 2401.09865" in printed


def test_a_recipe_is_shown_without_the_cosines_of_its_probe(capsys):
    assert discovery.recipe("scenes_clip").probe is not None
    assert main(["show", "scenes_clip"]) == 0
    shown = capsys.readouterr().out
    assert "optim.lr" in shown
    assert "probe" not in shown


def test_show_of_a_card_by_its_path(tmp_path, capsys):
    card = tmp_path / "their_model.toml"
    published = '[[published]]\ntask = "t"\nmetric = "top1"\nvalue = 0.5\ntolerance = 0.01\nsource = "their paper"\n'
    card.write_text(f'title = "their model"\nfamily = "own"\nsource = "a test"\n{published}')
    assert main(["show", str(card)]) == 0
    printed = capsys.readouterr().out
    assert "their_model (model): their model" in printed
    assert "t top1 50.00 1.00 their paper" in " ".join(printed.split())


def test_plugin_is_listed_and_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    plugin = tmp_path / "my_family.py"
    plugin.write_text('"""My own models [beta]."""\n\ndef load(card, weights):\n    ...\n')
    assert main(["show", "my_family", "--plugin", str(plugin)]) == 0
    # square brackets are text, not markup
    assert capsys.readouterr().out.startswith("my_family (encoder family): My own models [beta]")
    assert main(["list", "encoders", "--plugin", str(plugin)]) == 0
    assert "my_family" in capsys.readouterr().out


def test_suites_are_those_of_the_cards():
    assert suites() == sorted({suite for name in discovery.names("tasks") for suite in discovery.task(name).suites})


def test_contact_sheet(tmp_path, capsys, monkeypatch):
    scenes = discovery.load("datasets", "scenes1")
    monkeypatch.setattr(scenes, "contact_sheet", lambda path: path.write_bytes(b"a picture"))
    out = tmp_path / "scenes.png"
    assert main(["show", "scenes1", "--out", str(out)]) == 0
    assert out.read_bytes() == b"a picture"
    assert capsys.readouterr().out == f"Wrote {out}.\n"
