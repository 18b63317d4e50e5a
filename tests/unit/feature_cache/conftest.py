import pytest

from sparc_bench.feature_cache.cache import FeatureCache


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def said():
    return []


@pytest.fixture
def new_cache(said):
    """A cache as a new command would have it; what it says goes into `said`."""
    return lambda keep="full": FeatureCache(keep, said.append)
