"""`sparc-bench verify MODEL` as its users run it: families, kept models, stored vectors, exit codes."""

import json
import tomllib

import numpy as np
import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import ModelCard, ProbeValues
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cli.app import main
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.models import resolve
from sparc_bench.records.record import model_hash, recipe_hash
from sparc_bench.verify.checks import run_checks
from tests.toys import tiny_open_clip

PLUGIN = """
from tests.unit.verify.test_verify import BatchNorm
from tests.toys.verified import Toy

def load(card, weights, runtime):
    kind = {"sound": Toy, "broken": BatchNorm}[card.options["weights"]]
    return kind(card=card, precision=runtime.precision)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    path = tmp_path / "own_family.py"
    path.write_text(PLUGIN)
    return ["--plugin", str(path)]


def rows(printed):
    """Check -> status, of a printed table."""
    table = printed.split("\n\n")[1].splitlines()[1:]
    return {line[:15].strip(): line[15:].split()[0] for line in table if line[:1].strip()}


def test_a_sound_plugin_ends_with_0_and_the_verdict_last(plugin, capsys):
    assert main(["verify", "own_family:sound", *plugin]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("own_family_sound: own_family:sound (weights 000000000000, float32 on cpu)")
    assert set(rows(printed).values()) == {"ok", "note"}
    assert "left out: probe values (the card has none)" in printed
    assert printed.splitlines()[-1].startswith("own_family_sound is ready: nothing failed, no warning. (")
    table = printed[printed.index("[probe]") : printed.index("\n\nown_family_sound is ready")]
    ProbeValues.model_validate(tomllib.loads(table)["probe"])


def test_a_broken_plugin_ends_with_1_and_what_to_change(plugin, capsys):
    assert main(["verify", "own_family:broken", "--precision", "bf16", *plugin]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "not judged: patch order, probe values ('image batches' comes first)" in printed
    assert "Do not trust numbers of own_family_broken yet. An image's vector depends on the images beside it" in printed
    assert "[probe]" not in printed


def test_a_model_that_cannot_be_loaded_ends_with_2(capsys):
    assert main(["verify", "scenes_spark"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scenes_clip", "scenes_sparc", "flickr8k_clip", "flickr8k_sparc"])
def test_kept_models_pass_and_give_the_values_of_their_cards(name):
    report = run_checks(resolve.load_encoder(resolve.resolve(name), Runtime()))
    assert report.having("fail") == report.having("warning") == {}
    assert report.findings["probe values"].status == "ok"
    if name.startswith("flickr8k"):  # the last features of a ConvNet see beyond their cells
        assert report.findings["patch order"].status == "note"
    else:
        assert report.findings["patch order"].measured == "local 5 of 5, global 5 of 5"


@pytest.mark.slow
def test_probe_values_enter_no_hash_and_belong_to_the_kept_weights():
    recipe = discovery.recipe("scenes_clip")
    without = recipe.model_copy(update={"probe": None})
    assert recipe_hash(recipe) == recipe_hash(without)
    assert model_hash(recipe.model_card()) == model_hash(without.model_card())
    assert "probe" not in recipe.model_dump()
    resolved = resolve.resolve("scenes_clip")
    another_run = resolved.card.model_copy(update={"weights": None})
    report = run_checks(resolve.load_encoder(resolve.ResolvedModel(another_run, resolved.weights), Runtime()))
    assert report.findings["probe values"].measured == "they belong to the kept weights, and this is another run"


@pytest.mark.parametrize("kind", [ModelCard, Recipe])
def test_the_former_name_of_the_probe_table_is_refused_with_the_new_one(kind):
    with pytest.raises(UserError, match=r"^old.toml: unknown key 'reference': name the table \[probe\]"):
        parse(kind, {"name": "old", "reference": {"probe": 1}}, "old.toml")


@pytest.mark.slow
def test_the_wrong_activation_is_found_by_the_probe_values(tmp_path, capsys):
    right = tiny_open_clip.folder(tmp_path / "right", "vit")
    assert main(["verify", f"open_clip:{right}"]) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("[probe]") : printed.rindex("\n\n")]
    for kind, code in (("vit", 0), ("vit_quickgelu", 1)):  # the same weights under either activation
        folder = tiny_open_clip.folder(tmp_path / kind, kind)
        card = tmp_path / f"{kind}_card.toml"
        card.write_text(
            f'title = "T"\nfamily = "open_clip"\nsource = "S"\noptions = {{ model = "local-dir:{folder}" }}\n{table}\n'
        )
        assert main(["verify", str(card)]) == code
        said = " ".join(capsys.readouterr().out.split())
        assert ("images and texts both differ: compare the weights, the activation (QuickGELU or GELU)" in said) == code


def stored(folder, images_ND, texts_MD):
    folder.mkdir()
    np.save(folder / "image_embeddings.npy", images_ND.astype(np.float32))
    np.save(folder / "text_embeddings.npy", texts_MD.astype(np.float32))
    names = {
        "image_ids": [f"{n}.jpg" for n in range(len(images_ND))],
        "texts": [f"text {n}" for n in range(len(texts_MD))],
    }
    (folder / "inputs.json").write_text(json.dumps(names))
    return f"precomputed:{folder}"


def test_stored_vectors_are_judged_without_being_encoded(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images_ND, texts_MD = rng.standard_normal((7, 16)), rng.standard_normal((9, 16))
    assert main(["verify", stored(tmp_path / "good", images_ND, texts_MD)]) == 0
    printed = capsys.readouterr().out
    assert rows(printed) == dict.fromkeys(["shapes", "finite", "images differ", "texts differ", "ties"], "ok")
    assert "images 7 x 16, texts 9 x 16" in printed
    assert "vectors are stored, nothing is encoded" in " ".join(printed.split())
    assert "[probe]" not in printed

    texts_MD[3] = texts_MD[5]
    assert main(["verify", stored(tmp_path / "copies", images_ND, texts_MD)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 of 9 texts share a vector" in printed
    assert "1 warning (texts differ)" in printed

    images_ND[2] = 0
    assert main(["verify", stored(tmp_path / "zero", images_ND, texts_MD)]) == 1
    assert "zero vectors in 1 of the images (global)" in capsys.readouterr().out
