"""Set up before any test module is imported: shapes of metrics and objectives are checked, real data is found."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Pure functions state their shapes; under test a call that breaks them fails. This has to precede their import.
install_import_hook(["sparc_bench.metrics", "sparc_bench.objectives"], "beartype.beartype")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets that SPARC_BENCH_TEST_DATA names."""
    named = os.environ.get("SPARC_BENCH_TEST_DATA")
    if not named:
        pytest.skip("SPARC_BENCH_TEST_DATA names no folder of real data")
    return Path(named)
