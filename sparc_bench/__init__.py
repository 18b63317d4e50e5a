"""Train and measure fine-grained vision-language representations under named protocols.

    import sparc_bench as sb

    records = sb.evaluate("scenes_clip", tasks=["scenes_retrieval"])
    records.to_pandas()

The names below are imported when they are first used, so that `import sparc_bench` itself imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sparc_bench.errors import UserError
    from sparc_bench.models.torch_module import wrap
    from sparc_bench.python_api import compare, evaluate, list_models, list_tasks, load_records, train
    from sparc_bench.report.record_list import Records

__all__ = [
    "Records",
    "UserError",
    "compare",
    "evaluate",
    "list_models",
    "list_tasks",
    "load_records",
    "train",
    "wrap",
]

_ELSEWHERE = {"Records": "report.record_list", "UserError": "errors", "wrap": "models.torch_module"}
"""Name -> its module; all others are in `python_api`."""

if not TYPE_CHECKING:  # which would otherwise take any name for one of this module

    def __getattr__(name: str) -> object:
        """A name of `__all__`, imported now."""
        if name not in __all__:
            raise AttributeError(f"module 'sparc_bench' has no attribute '{name}'")
        value = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'python_api')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
