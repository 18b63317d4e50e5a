import hashlib
import os
from pathlib import Path

import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.card import Strict
from sparc_bench.cards.name import LONGEST_NAME
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cli.check import check_model
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.models import resolve
from sparc_bench.records.record import model_hash, read_record, record_files
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights import hub

pytestmark = pytest.mark.usefixtures("toy_plugins")

REPOSITORY = Path(__file__).parents[3]

CARD = """
title = "Small"
source = "none"
objective = "clip"
batch_size = 4
steps = {steps}
eval_every = 5
notes = "{notes}"
[data]
dataset = "scenes1"
[image]
[text]
[optim]
warmup = 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of reference models with the recipe `small`, and runs beside it."""
    cards = tmp_path / "reference_models"
    cards.mkdir()
    (cards / "small.toml").write_text(CARD.format(steps=9, notes=""))
    monkeypatch.setattr(discovery, "cards_folder", lambda kind: tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(folder, name="small", seed=0, steps=9, notes="old notes"):
    card = {"name": name, **discovery.model("small").model_dump(exclude={"name"})}
    recipe = Recipe.model_validate({**card, "steps": steps, "notes": notes})
    file = folder / "runs" / name / f"seed{seed}" / "model.safetensors"
    meta = checkpoint.Meta(recipe, seed, steps, "", {"cat": 3})
    checkpoint.write_checkpoint({"model.x": torch.zeros(2)}, meta, file)
    return file


def test_a_recipe_without_a_run_says_how_to_train_it(folder):
    with pytest.raises(UserError, match=r"run sparc-bench train small\.$"):
        resolve.resolve("small")
    with pytest.raises(UserError, match=r"run sparc-bench train small --seed 3\.$"):
        resolve.resolve("small", seed=3)


def test_a_recipe_finds_its_run_by_seed(folder):
    save(folder), save(folder, seed=1)
    assert resolve.resolve("small").seed == 0
    resolved = resolve.resolve("small", seed=1)
    assert (resolved.seed, resolved.card.name, resolved.card.family) == (1, "small", "own")
    assert resolved.weights.parent.name == "seed1"
    assert resolved.card.trained_on == ("scenes1:train",)


def test_a_run_of_other_settings_is_refused_but_other_prose_is_not(folder):
    save(folder, notes="other prose")
    resolve.resolve("small")
    save(folder, steps=7)
    with pytest.raises(UserError, match="another version of small: delete"):
        resolve.resolve("small")
    assert resolve.resolve(os.fspath(folder / "runs/small/seed0")).card.name == "small"


def test_reference_weights_come_first_and_are_checked(folder):
    file = save(folder)
    kept = folder / "reference_models" / "weights" / "small.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(file.read_bytes())
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    card = folder / "reference_models" / "small.toml"
    card.write_text(card.read_text() + f'[weights]\nfile = "weights/small.safetensors"\nsha256 = "{sha256}"\n')
    assert resolve.resolve("small").weights == kept
    assert resolve.resolve(os.fspath(card)).weights == kept
    assert resolve.resolve("small", run=file.parent).weights == file
    save(folder, seed=1)
    assert resolve.resolve("small", seed=1).weights.parent.name == "seed1"
    kept.write_bytes(b"another file")
    with pytest.raises(UserError, match="sha256"):
        resolve.resolve("small")
    kept.unlink()
    with pytest.raises(UserError, match="missing: restore the file, mend the card, or name a recipe's run with --run"):
        resolve.resolve("small")


def test_a_run_of_another_recipe_is_refused(folder):
    file = save(folder, name="other")
    with pytest.raises(UserError, match="is of other, not of small"):
        resolve.resolve("small", run=file.parent)


def test_unfinished_or_foreign_runs(folder):
    (folder / "runs" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="training has finished"):
        resolve.resolve(os.fspath(folder / "runs" / "x"))
    (folder / "runs" / "x" / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="damaged"):
        resolve.resolve(os.fspath(folder / "runs" / "x"))


def test_names_that_are_nothing(folder):
    with pytest.raises(UserError, match="did you mean 'small'"):
        resolve.resolve("smal")
    with pytest.raises(UserError, match="names no weights: write own:WEIGHTS"):
        resolve.resolve("own:")
    with pytest.raises(UserError, match=r"no encoder family 'toy_famly': did you mean 'toy_family'\?"):
        resolve.resolve("toy_famly:x")
    (folder / "x.pt").touch()
    with pytest.raises(UserError, match=r"'x\.pt' is a file: write FAMILY:x\.pt with one of .*hf.*own.*toy_family"):
        resolve.resolve("x.pt")


def test_family_and_weights(folder, tmp_path):
    resolved = resolve.resolve("toy_family:ViT-B-32/openai")
    assert resolved.card.name == "toy_family_ViT-B-32_openai"
    assert resolved.card.options == {"weights": "ViT-B-32/openai"}
    assert resolved.weights is None
    (tmp_path / "features").mkdir()
    assert resolve.resolve(f"toy_family:{tmp_path / 'features'}").weights == tmp_path / "features"
    assert resolve.resolve(f"own:{save(folder, seed=2)}").seed == 2
    with pytest.raises(UserError, match="names its weights already: leave --run out"):
        resolve.resolve("toy_family:features", run=tmp_path)


def test_hf_is_another_spelling_of_transformers(folder):
    resolved = resolve.resolve("hf:owner/name")
    assert resolved == resolve.resolve("transformers:owner/name")
    assert (resolved.card.family, resolved.card.options) == ("transformers", {"weights": "owner/name"})


@pytest.mark.parametrize(
    "word", ["absent.pt", "runs/absent.safetensors", "./absent", "../absent", "/absent", "~/absent"]
)
def test_a_path_that_is_not_there(folder, monkeypatch, word):
    monkeypatch.setenv("HOME", os.fspath(folder))
    with pytest.raises(UserError, match=r"no file or folder .*absent.*: check the path after 'toy_family:'\.$"):
        resolve.resolve(f"toy_family:{word}")


def test_a_family_whose_options_know_weights_reads_its_words_itself(folder, monkeypatch):
    class Options(Strict):
        weights: str

    monkeypatch.setattr(discovery.load("encoders", "toy_family"), "Options", Options, raising=False)
    assert resolve.resolve("toy_family:architecture/absent.pt").card.options == {"weights": "architecture/absent.pt"}


def test_a_home_folder_inside_a_word(folder, monkeypatch):
    monkeypatch.setenv("HOME", os.fspath(folder))
    (folder / "x.pt").touch()
    assert resolve.resolve("toy_family:~/x.pt").weights == folder / "x.pt"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("x.pt", "toy_family_x.pt"),
        ("./a//x.pt", "toy_family_a_x.pt"),
        ("../beside", "toy_family_beside"),
        ("runs/one/checkpoints/epoch_1.pt", "toy_family_one_checkpoints_epoch_1.pt"),
        ("~/x.pt", "toy_family_outer_home_x.pt"),
    ],
)
def test_a_model_has_the_name_of_its_path_however_it_is_typed(tmp_path, monkeypatch, word, name):
    home = tmp_path / "outer" / "home"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", os.fspath(home))
    path = Path(word).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    resolved = resolve.resolve(f"toy_family:{word}")
    assert (resolved.card.name, resolved.weights) == (name, path)


def test_a_name_is_a_safe_folder(folder):
    names = {
        "hf-hub:owner/name": "toy_family_hf-hub_owner_name",
        "a b*c?d": "toy_family_a_b_c_d",
        "gewicht-größe": "toy_family_gewicht-größe",
        "x.seed3": "toy_family_x_seed3",
        ".": f"toy_family_{folder.name}",
    }
    assert {word: resolve.resolve(f"toy_family:{word}").card.name for word in names} == names
    long = [resolve.resolve(f"toy_family:{'owner/' * 50}{end}").card.name for end in "ab"]
    assert len({*long}) == 2
    assert max(map(len, long)) <= LONGEST_NAME


def third_party(folder, weights):
    card = folder / "cards" / "theirs.toml"
    card.parent.mkdir(exist_ok=True)
    card.write_text(f'title = "Theirs"\nfamily = "toy_family"\nsource = "none"\n[weights]\n{weights}')
    return os.fspath(card)


def test_a_card_finds_its_file_beside_it_or_anywhere(folder, monkeypatch):
    monkeypatch.setenv("HOME", os.fspath(folder))
    pin = f'sha256 = "{hashlib.sha256(b"weights").hexdigest()}"\n'
    (folder / "cards" / "sub").mkdir(parents=True)
    for path in (folder / "cards" / "sub" / "x.pt", folder / "x.pt"):
        path.write_bytes(b"weights")
    assert (
        resolve.resolve(third_party(folder, f'file = "sub/x.pt"\n{pin}')).weights == folder / "cards" / "sub" / "x.pt"
    )
    assert resolve.resolve(third_party(folder, f'file = "~/x.pt"\n{pin}')).weights == folder / "x.pt"
    card = third_party(folder, f'file = "{(folder / "x.pt").as_posix()}"\n{pin}')
    assert resolve.resolve(card).weights == folder / "x.pt"
    (folder / "x.pt").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"x\.pt has the sha256 .* but the card of theirs says .*: restore the file"):
        resolve.resolve(card)
    (folder / "x.pt").unlink()
    with pytest.raises(UserError, match=r"weights .*x\.pt of theirs are missing: restore the file, mend the card"):
        resolve.resolve(card)
    with pytest.raises(UserError, match="is no recipe, so that it has no runs: leave --run out"):
        resolve.resolve(card, run=folder)


def test_a_card_of_the_hub_is_obtained_with_its_pins_but_never_by_check(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "find", lambda *_: None)
    monkeypatch.setattr(hub, "obtain", lambda *args: asked.append(args) or folder / "found")
    pins = f'sha256 = "{"0" * 64}"\nrevision = "{"a" * 40}"\n'
    card = third_party(folder, f'hub = "owner/name"\nfile = "model.safetensors"\n{pins}')
    check_model(discovery.model(card), folder)
    assert asked == []
    assert resolve.resolve(card).weights == folder / "found"
    assert asked == [("owner/name", "model.safetensors", "a" * 40, "0" * 64)]
    monkeypatch.setattr(hub, "find", lambda *_: folder / "found")
    check_model(discovery.model(card), folder)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ('file = "x"', r"\[weights\] nothing pins x: add its sha256 \(sha256sum x\)\.$"),
        ('file = "x"\nsha256 = "12"', "sha256 has 64 digits of 0-9 and a-f, '12' has not: copy it whole"),
        ('file = "x"\nrevision = "main"', r"name its repository with hub = 'OWNER/NAME'"),
        ('file = "x"\nhub = "o/n"', "nothing pins x: add its sha256, or the revision"),
        ('file = "x"\nhub = "o/n"\nrevision = "main"', "revision 'main' can move: give the 40 digits of its commit"),
        ('file = "x"\nhub = "o/n"\nrevison = "main"', r"unknown key 'weights\.revison': did you mean 'revision'\?"),
    ],
)
def test_weights_that_nothing_pins_are_refused(folder, weights, match):
    with pytest.raises(UserError, match=match):
        resolve.resolve(third_party(folder, weights))


def test_a_checkpoint_of_others_has_no_seeds(evaluated, toy_model):
    assert resolve.resolve(toy_model(), seed=3).seed == 0
    results = evaluated(seed=3)
    assert [path.name for path in results.iterdir()] == ["toy_good"]


def test_pins_of_the_hub_leave_the_hash_of_older_records_alone():
    files = [path for path in record_files(REPOSITORY / "results") if ".seed" not in path.parent.name]
    assert files
    for file in files:
        record = read_record(file)
        card = discovery.model(record.model)
        kept = card.model_card() if isinstance(card, Recipe) else card
        hashes = {model_hash(kept), model_hash(kept.model_copy(update={"weights": None}))}
        assert record.model_hash in hashes, file


def test_run_belongs_to_recipes(folder, toy_model):
    with pytest.raises(UserError, match="leave --run out"):
        resolve.resolve(toy_model(), run=folder)
    file = save(folder)
    with pytest.raises(UserError, match="leave --run out"):
        resolve.resolve(os.fspath(file.parent), run=file.parent)


def test_a_run_with_nan_weights_is_refused(folder):
    file = save(folder)
    meta, tensors = checkpoint.read(file)
    checkpoint.write_checkpoint({"model.x": tensors["model.x"] * float("nan")}, meta, file)
    with pytest.raises(UserError, match=r"2 of 2 values of 'model\.x' are NaN or infinite"):
        resolve.load_encoder(resolve.resolve("small"), Runtime())


def test_load_encoder_hands_the_settings_on(toy_model):
    encoder = resolve.load_encoder(resolve.resolve(toy_model("toy_best", 1.0)), Runtime(batch_size=3))
    assert (encoder.card.name, encoder.weights_hash) == ("toy_best", "toy 1.0")
