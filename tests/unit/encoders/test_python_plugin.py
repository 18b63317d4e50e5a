"""Models of third parties: one Python file, by path, by --plugin or from an installed package."""

import hashlib
import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cli.app import main
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import python
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models.resolve import load_encoder, resolve
from tests.plugins.tiny_mini_clip import write
from tests.toys.model_inputs import task

PLUGINS = Path(__file__).parents[2] / "plugins"
MINI_CLIP = PLUGINS / "mini_clip.py"
GLOBAL = frozenset({"global"})

WHOLE = """
import torch
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.encoder import ImageTextEncoder

def pixels(view):
    return torch.ones(3), (0.0, 0.0, 8.0, 8.0)

class Model(ImageTextEncoder):
    def __init__(self, card, weights, runtime):
        super().__init__(card, runtime, pixels, str(weights), {"scale": card.options.get("scale")})
    def encode_pixels(self, pixels, need):
        return ImageFeatures((), pixels)
    def encode_texts(self, texts, need):
        return TextFeatures(tuple(texts), torch.ones(len(texts), 3))

load = Model
"""


@pytest.fixture(autouse=True)
def only_own_plugins(monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    discovery._installed_plugins.cache_clear()
    yield
    discovery._installed_plugins.cache_clear()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes a plug-in whose name no other test has."""

    def written(content=WHOLE, name=f"third_party_{tmp_path.name}"):
        path = tmp_path / f"{name}.py"
        path.write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return path

    return written


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("mini_clip") / "tiny.pt", discovery.add_plugin(MINI_CLIP).towers)


def sentence(call, match):
    with pytest.raises(UserError, match=match) as error:
        call()
    assert "\n" not in str(error.value)
    assert str(error.value).endswith((".", "?"))


def test_the_plugin_of_the_readme_is_short():
    assert len(MINI_CLIP.read_text().splitlines()) < 60


def test_three_ways_to_the_same_vectors(checkpoint, tmp_path):
    card = tmp_path / "mini.toml"
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    card.write_text(
        f'title = "Mini"\nfamily = "python"\nsource = "none"\noptions = {{ file = "{MINI_CLIP}" }}\n'
        f'[weights]\nfile = "{checkpoint}"\nsha256 = "{sha256}"\n'
    )
    discovery.add_plugin(MINI_CLIP)
    words = [f"mini_clip:{checkpoint}", f"python:{MINI_CLIP}:{checkpoint}", str(card)]
    encoders = [load_encoder(resolve(word), Runtime()) for word in words]
    items = [View(ImageItem(colour, partial(Image.new, "RGB", (20, 30), colour))) for colour in ("red", "blue")]
    texts = ["a photo of a red star", "Blue CIRCLE, of unseen words", ""]
    images = [encoder.images(items, GLOBAL).global_ND for encoder in encoders]
    strings = [encoder.texts(texts, GLOBAL).global_MD for encoder in encoders]
    assert all(torch.equal(each, images[0]) for each in images)
    assert all(torch.equal(each, strings[0]) for each in strings)
    assert (images[0][0] - images[0][1]).abs().max() > 1e-3
    assert {encoder.weights_hash for encoder in encoders} == {sha256}
    assert len({encoder.identity["plug-in"] for encoder in encoders}) == 1


@pytest.mark.slow
def test_trained_weights_know_their_own_captions(test_data, tmp_path):
    file = test_data / "third_party_checkpoints/mini_clip_shapes/mini_clip.pt"
    if not file.is_file():
        pytest.skip(f"{test_data} holds no mini_clip_shapes")
    for name in ("mini_clip", "shape_photos"):
        discovery.add_plugin(PLUGINS / f"{name}.py")
    own = discovery.task(str(PLUGINS / "shape_photos_classification.toml"))
    scenes = [discovery.task(name) for name in ("scenes_classification_colour", "scenes_segmentation_shape")]
    done = evaluate(f"mini_clip:{file}", [own, *scenes], Settings(results=tmp_path, limit=200))
    assert done[0].record.metrics["top1"].value >= 0.98
    assert done[1].record.metrics["top1"].low > 1 / 6
    assert "scenes_segmentation_shape needs patches of a model, which mini_clip" in done[2].error


def test_words_without_weights_and_options_reach_the_file(plugin):
    encoder = load_encoder(resolve(f"python:{plugin()}"), Runtime())
    assert (encoder.weights_hash, dict(encoder.card.options)) == ("None", {})
    encoder = load_encoder(resolve(f"python:{plugin()}:some-tag"), Runtime())
    assert (encoder.weights_hash, dict(encoder.card.options)) == ("None", {"weights": "some-tag"})
    card = ModelCard(name="x", title="", family="python", source="", options={"file": str(plugin()), "scale": 3})
    encoder = python.load(card, None, Runtime())
    assert encoder.identity["scale"] == 3
    assert dict(encoder.card.options) == {"scale": 3}


def test_the_files_own_code_is_part_of_what_the_cache_knows(plugin, monkeypatch):
    first = load_encoder(resolve(f"python:{plugin()}"), Runtime()).identity
    again = load_encoder(resolve(f"python:{plugin()}"), Runtime()).identity
    discovery._plugins.clear()
    other = load_encoder(resolve(f"python:{plugin(WHOLE.replace('ones(3)', 'zeros(3)'))}"), Runtime()).identity
    assert first == again
    assert first["plug-in"] != other["plug-in"]
    # an encoder that says nothing of itself is never cached, whatever its code
    discovery._plugins.clear()
    silent = plugin(WHOLE.replace('{"scale": card.options.get("scale")}', "None"))
    assert load_encoder(resolve(f"python:{silent}"), Runtime()).identity is None


def test_a_record_of_other_code_is_not_kept(plugin, tmp_path):
    card = task()

    def evaluated():
        discovery._plugins.clear()
        (result,) = evaluate(f"python:{path}", [card], Settings(results=tmp_path / "results"))
        assert result.error is None
        return result

    path = plugin()
    first, again = evaluated(), evaluated()
    assert (first.kept, again.kept) == (False, True)
    plugin(WHOLE + "# edited")
    assert not evaluated().kept


def test_preprocessing_finds_its_way_into_worker_processes(plugin):
    encoder = load_encoder(resolve(f"python:{plugin()}"), Runtime())
    assert pickle.loads(pickle.dumps(encoder._open))(None)[1] == (0, 0, 8, 8)
    assert str(plugin().parent) in sys.path


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("def load(:", r"mistake in line 1 \(.*\): mend it"),
        ("import no_such_library", "cannot be imported .*no_such_library.*: install what it needs"),
        ("x = 1", "has none of read, load, Objective, score"),
        ("def score(): pass", r"has no function load: define load\(card, weights, runtime\)"),
        ("def load(card, weights, runtime): return None", "NoneType that load of .* returns has no card, device"),
        (WHOLE.replace("load = Model", "Model.gives = frozenset({'globl'})\nload = Model"), "did you mean 'global'"),
        (WHOLE.replace("load = Model", "Model.texts = property()\nload = Model"), "has no texts"),
    ],
)
def test_files_that_are_no_encoder(plugin, content, match):
    path = plugin(content)
    sentence(lambda: load_encoder(resolve(f"python:{path}"), Runtime()), match)
    assert path.stem not in discovery._plugins or hasattr(discovery._plugins[path.stem], "load") or "score" in content


def test_an_error_of_the_authors_own_keeps_its_traceback(plugin):
    with pytest.raises(ZeroDivisionError):
        discovery.add_plugin(plugin("1 / 0"))


def test_paths_that_are_no_file(tmp_path):
    sentence(lambda: python.load(resolve(f"python:{tmp_path}/none.py").card, None, Runtime()), "does not exist")
    sentence(lambda: python.load(resolve("python:a_tag").card, None, Runtime()), "does not exist: check the path")
    card = ModelCard(name="x", title="", family="python", source="")
    sentence(lambda: python.load(card, None, Runtime()), r'names no Python file: add file = "my_model.py"')


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("own", "has the name of one of the encoders here: rename the file"),
        ("retrieval", "has the name of one of the protocols here"),
        ("json", r"has the name of another module \(.*json.*\): rename the file"),
        ("math", "has the name of another module"),
        ("torch", "has the name of another module"),
        ("my-model", "no Python file that can be imported: give it a name such as my_model.py"),
    ],
)
def test_names_that_something_else_has(tmp_path, name, match):
    before = sys.modules.get(name)
    (tmp_path / f"{name}.py").write_text("def load(card, weights, runtime): pass")
    sentence(lambda: discovery.add_plugin(tmp_path / f"{name}.py"), match)
    assert sys.modules.get(name) is before


def test_two_plugins_of_one_name(plugin, tmp_path):
    discovery.add_plugin(plugin(name="twice_there"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/twice_there.py").write_text(WHOLE)
    sentence(lambda: discovery.add_plugin(tmp_path / "other/twice_there.py"), "has the name of another module")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package, as pip would lay it out, with one entry point."""

    def install(name, content, version="1.0", module="installed_third_party"):
        site = tmp_path / f"site_{module}"
        about = site / f"{module}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
        (about / "entry_points.txt").write_text(f"[sparc_bench.plugins]\n{name} = {module}\n")
        (site / f"{module}.py").write_text(content)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)
        discovery._installed_plugins.cache_clear()
        return str(site)

    return install


def test_an_installed_package_is_a_family(installed, capsys):
    installed("their_family", WHOLE)
    assert "their_family" in discovery.names("encoders")
    encoder = load_encoder(resolve("their_family:any-tag"), Runtime())
    assert encoder.card.family == "their_family"
    assert len(encoder.identity["plug-in"]) == 64
    assert main(["list", "encoders"]) == 0
    assert "their_family" in capsys.readouterr().out


def test_a_new_version_of_a_package_is_other_code(installed):
    old = installed("their_family", WHOLE, version="1.0", module="installed_one")
    first = discovery.plugin_code("their_family")
    installed("their_family", WHOLE, version="2.0", module="installed_one_again")
    sentence(lambda: discovery.names("encoders"), "'their_family' is of both installed_one.* uninstall one of them")
    sys.path.remove(old)
    discovery._installed_plugins.cache_clear()
    assert discovery.plugin_code("their_family") not in (first, None)
    assert discovery.plugin_code("own") is None


def test_an_installed_package_that_cannot_be_used(installed):
    installed("their_family", "import no_such_library", module="installed_broken")
    sentence(lambda: discovery.names("encoders"), "'their_family' of installed_broken cannot be imported")
    installed("open_clip", WHOLE, module="installed_clash")
    sentence(lambda: discovery.names("encoders"), "'open_clip' of installed_clash has the name of one of the encoders")
