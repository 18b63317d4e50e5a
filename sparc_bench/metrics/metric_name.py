"""The name of a metric, and the patch path that it reads where it is one of patch vectors."""

from __future__ import annotations

from typing import Any

from pydantic_core import CoreSchema, core_schema


class MetricName(str):
    """A metric's name, of patch vectors with their path: the string that records and files of outcomes hold.

    Equal to its spelling, so that `record.metrics["local/miou"]` finds it.

    >>> name = MetricName("miou").at("local")
    >>> name, name.metric, name.path
    ('local/miou', 'miou', 'local')
    >>> MetricName("local/miou").at("global"), MetricName("top1").path
    ('global/miou', '')
    """

    __slots__ = ()

    @property
    def metric(self) -> str:
        """What is measured, by whichever path."""
        return self.rpartition("/")[2]

    @property
    def path(self) -> str:
        """The patch path; empty where the metric is not one of patch vectors."""
        return self.rpartition("/")[0]

    def at(self, path: str) -> MetricName:
        """The same metric of a patch path; an empty path gives the metric alone."""
        return MetricName(f"{path}/{self.metric}" if path else self.metric)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:  # noqa: ANN401 - pydantic's own
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def at_path(path: str, name: str) -> str:
    """The name of an array, a grouping or a count of one patch path, spelt as its metrics are.

    >>> at_path("global", "class"), at_path("", "class")
    ('global/class', 'class')
    """
    return MetricName(name).at(path)
