"""From any corpus to batches. lhotse's cuts are the manifest, and lhotse is at home in this package only.

lhotse takes seconds to import, so nothing is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.data.loading import Batch, Loader, make_loader
    from asr.data.manifests import load_cuts

_HOMES = {
    "Batch": "asr.data.loading",
    "Loader": "asr.data.loading",
    "make_loader": "asr.data.loading",
    "load_cuts": "asr.data.manifests",
}
__all__ = ["Batch", "Loader", "load_cuts", "make_loader"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'asr.data' has no attribute {name!r}")
