import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.encoder import Runtime
from sparc_bench.evaluation.guessing_encoders import ConstantEncoder, RandomEncoder
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.features import Regions
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models import resolve

pytestmark = pytest.mark.usefixtures("toy_plugins")

ALL = frozenset({"global", "patches"})


@pytest.fixture
def watched(toy_model):
    counted = []
    encoder = WatchedEncoder(resolve.load_encoder(resolve.resolve(toy_model()), Runtime()), counted.append)
    encoder.counted = counted
    return encoder


@pytest.fixture
def items():
    return list(
        discovery.load("datasets", "toy_data")
        .read(None, "test", discovery.load("datasets", "toy_data").Options())
        .views
    )


@pytest.mark.parametrize("cls", [ConstantEncoder, RandomEncoder])
def test_same_paths_grid_and_area_as_the_model_beside(watched, items, cls):
    own = watched.images(items, ALL)
    other = cls(watched).images(items, ALL)
    assert other.patches.keys() == own.patches.keys()
    assert (other.ids, other.grid) == (own.ids, own.grid)
    assert torch.equal(other.area_N4, own.area_N4)
    assert all(patches.shape[:2] == own.patches[path].shape[:2] for path, patches in other.patches.items())
    assert watched.counted == [len(items)]


def test_geometry_of_images_that_were_never_encoded(watched, items):
    features = RandomEncoder(watched).images(items[:3], frozenset({"patches"}))
    assert features.grid == (2, 2)
    assert features.area_N4.tolist() == [[0.0, 0.0, 8.0, 8.0]] * 3
    assert features.global_ND is None


def test_random_vectors_belong_to_ids_and_strings(watched, items):
    encoder = RandomEncoder(watched)
    forth, back = encoder.images(items, ALL), encoder.images(items[::-1], ALL)
    assert torch.equal(forth.global_ND, back.global_ND.flip(0))
    assert torch.equal(forth.patches["local"], back.patches["local"].flip(0))
    assert not torch.equal(forth.patches["local"], forth.patches["global"])
    crop = View(items[0].item, (0.0, 0.0, 4.0, 4.0))
    assert not torch.equal(encoder.images([crop], ALL).global_ND, forth.global_ND[:1])
    pair, single = encoder.texts(["a cat", "a b c"], {"global", "tokens"}), encoder.texts(["a b c"], {"global"})
    assert torch.equal(pair.global_MD[1:], single.global_MD)
    assert pair.mask_ML.tolist() == [[True, True, False], [True, True, True]]


def test_random_scores_are_about_chance(watched):
    encoder = RandomEncoder(watched)
    many = [View(ImageItem(str(i), lambda: None)) for i in range(2000)]
    scores, same = encoder.similarity(encoder.images(many, {"global"}), encoder.texts(list("abcd"), {"global"}))
    assert scores is same
    share_M = torch.bincount(scores.argmax(1), minlength=4) / 2000
    assert torch.allclose(share_M, torch.full((4,), 0.25), atol=0.05)


def test_constant_scores_tie_exactly(watched, items):
    encoder = ConstantEncoder(watched)
    images, texts = encoder.images(items, ALL), encoder.texts(["a", "b"], {"global"})
    regions = Regions(torch.full((3, 4), 1 / 4), torch.tensor([0, 1, 1]))
    assert (encoder.similarity(images, texts)[0] == 1).all()
    assert encoder.similarity(images, texts, regions, "global")[0].tolist() == [[1.0, 1.0]] * 3
    assert encoder.dense_scores(images, texts).shape == (len(items), 2, 2, 2)
    assert encoder.untrained() is None


def test_random_regions_and_dense_scores_agree(watched, items):
    encoder = RandomEncoder(watched)
    images, texts = encoder.images(items[:2], ALL), encoder.texts(["a", "b", "c"], {"global"})
    dense = encoder.dense_scores(images, texts, "global")
    one_patch = Regions(torch.eye(4), torch.zeros(4, dtype=torch.long))
    regions = encoder.similarity(images, texts, one_patch, "global")[0]
    assert torch.allclose(dense[0].flatten(1).T, regions, atol=1e-6)


def test_watching_changes_nothing(watched, items):
    inner = watched.inner
    assert watched.card is inner.card
    assert torch.equal(watched.images(items, ALL).global_ND, inner.images(items, ALL).global_ND)
    assert watched.texts(["cat"], ALL).texts == ("cat",)
    assert watched.preprocess(items[0])[1] == (0.0, 0.0, 8.0, 8.0)
    assert watched.untrained().skill == 0.3
    assert watched.similarity(inner.images(items, ALL), inner.texts(["cat"], ALL))[0].shape == (30, 1)
