import builtins

import pytest

from sparc_bench.errors import UserError
from sparc_bench.metrics import content_words
from sparc_bench.metrics.content_words import hanta_version, tagged_by, tagged_by_hanta


@pytest.mark.slow
def test_hanta_keeps_nouns_and_adjectives():
    pytest.importorskip("HanTa")
    assert tagged_by_hanta(("a", "red", "dog", "is", "running", "on", "the", "wet", "grass")) == (
        "red",
        "dog",
        "wet",
        "grass",
    )
    assert tagged_by_hanta(()) == ()
    assert hanta_version()


def test_hanta_loads_only_its_own_model(tmp_path, monkeypatch):
    pytest.importorskip("HanTa")
    (tmp_path / "morphmodel_en.pgz").write_bytes(b"not a model")
    monkeypatch.chdir(tmp_path)
    content_words._hanta.cache_clear()
    tagged_by_hanta.cache_clear()
    assert tagged_by_hanta(("red", "dog")) == ("red", "dog")


def test_without_hanta_the_sentence_ends_in_the_fix(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "HanTa":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    content_words._hanta.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'sparc-bench\[faithfulness\]'"):
        hanta_version()


def test_own_word_list():
    keep = tagged_by({"red": "ADJ", "square": "NOUN", "on": "OTHER"})
    assert keep(("red", "square", "on", "square")) == ("red", "square", "square")
    with pytest.raises(UserError, match="'blue'"):
        keep(("blue",))
