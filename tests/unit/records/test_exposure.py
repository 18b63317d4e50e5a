import json

import pytest

from sparc_bench.errors import UserError
from sparc_bench.records.exposure import Exposure
from sparc_bench.records.record import read_record

pytestmark = pytest.mark.usefixtures("toy_plugins")


@pytest.mark.parametrize("text", ["none", "domain", "unknown", "1 images seen", "5000 images seen"])
def test_the_text_of_an_exposure_is_read_back(text):
    assert str(Exposure.parse(text)) == text


@pytest.mark.parametrize("text", ["", "seen", "some images seen", "-3 images seen", "12 images seen by day", "Domain"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="is no exposure: none, domain, unknown or N images seen"):
        Exposure.parse(text)


def test_images_are_counted_only_where_they_were_seen():
    with pytest.raises(ValueError, match="12 images seen is not an exposure of the kind domain"):
        Exposure("domain", 12)


def test_a_record_holds_the_text(evaluated):
    path = evaluated() / "toy_good" / "toy.json"
    record = read_record(path)
    assert json.loads(path.read_text())["exposure"] == str(record.exposure)
    seen = record.model_copy(update={"exposure": Exposure("seen", 12)})
    assert seen.model_dump(mode="json")["exposure"] == "12 images seen"
    assert type(seen).model_validate(seen.model_dump(mode="json")).exposure == Exposure("seen", 12)
    path.write_text(path.read_text().replace(f'"exposure": "{record.exposure}"', '"exposure": "some"'))
    with pytest.raises(UserError, match=r"damaged \('exposure.*'some' is no exposure.*--force\."):
        read_record(path)
