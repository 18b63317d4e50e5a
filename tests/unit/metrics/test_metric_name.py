import pickle

import pytest

from sparc_bench.metrics.metric_name import MetricName, at_path


@pytest.mark.parametrize(
    ("spelling", "metric", "path"), [("local/miou", "miou", "local"), ("top1", "top1", ""), ("a/b/ap", "ap", "a/b")]
)
def test_a_name_is_its_spelling_and_knows_its_path(spelling, metric, path):
    name = MetricName(spelling)
    assert (name, name.metric, name.path) == (spelling, metric, path)
    assert {name: 1}[spelling] == {spelling: 1}[name] == 1
    assert name.at(path) == name
    assert pickle.loads(pickle.dumps(name)).path == path


def test_the_same_metric_of_another_path():
    assert MetricName("local/miou").at("global") == MetricName("miou").at("global") == at_path("global", "miou")
    assert MetricName("local/miou").at("") == "miou"
    assert isinstance(MetricName("local/miou").at("global"), MetricName)
