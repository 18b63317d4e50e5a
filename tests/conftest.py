"""Set up before any test module is imported: shapes of metrics and objectives are checked, real data is found."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Pure functions state their shapes; under test a call that breaks them fails. This has to precede their import.
install_import_hook(["sparc_bench.metrics", "sparc_bench.objectives"], "beartype.beartype")

_number = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of a module keep lies apart from what the user's own evaluations kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARC_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _cache_of_the_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another one kept; the folder is made when something is kept."""
    folder = tmp_path_factory.getbasetemp() / f"cache{next(_number)}"
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(folder))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets that SPARC_BENCH_TEST_DATA names."""
    named = os.environ.get("SPARC_BENCH_TEST_DATA")
    if not named:
        pytest.skip("SPARC_BENCH_TEST_DATA names no folder of real data")
    return Path(named)
