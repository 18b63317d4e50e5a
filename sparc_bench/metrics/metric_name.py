"""Name of a metric, with the patch path of a metric of patch vectors."""

from __future__ import annotations

from typing import Any

from pydantic_core import CoreSchema, core_schema


class MetricName(str):
    """Name of a metric as records and files of outcomes spell it: METRIC, or PATH/METRIC for patch vectors.

    It is a string, so that `record.metrics["local/miou"]` finds it.

    >>> name = MetricName("miou").at("local")
    >>> name, name.metric, name.path
    ('local/miou', 'miou', 'local')
    >>> MetricName("local/miou").at("global"), MetricName("top1").path
    ('global/miou', '')
    """

    __slots__ = ()

    @property
    def metric(self) -> str:
        """Metric without its path."""
        return self.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Patch path; empty for a metric without one."""
        return self.rpartition("/")[0]

    def at(self, path: str) -> MetricName:
        """Name of the same metric at a patch path; without a path if empty."""
        return MetricName(f"{path}/{self.metric}" if path else self.metric)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:  # noqa: ANN401 - pydantic's own
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def at_path(path: str, name: str) -> str:
    """Name of an array, a grouping or a count of a patch path, spelt like its metrics.

    >>> at_path("global", "class"), at_path("", "class")
    ('global/class', 'class')
    """
    return MetricName(name).at(path)
