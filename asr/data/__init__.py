"""From any corpus to batches: what training needs. What `asr prepare` and `asr check` need is in `asr.data.corpora`.

torch and lhotse take seconds to import, so nothing is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.data.batches import Batch, Encoding, Variation
    from asr.data.cuts import Cut, file_of, load_cuts, speaker_of, text_of, write_cuts, write_manifest
    from asr.data.loading import Loader, make_loader
    from asr.data.reading import read_samples
    from asr.data.sampling import BatchLimits, BatchOrder
    from asr.data.shards import Shards, is_sharded, open_corpus, write_shards

_HOMES = {
    "batches": ("Batch", "Encoding", "Variation"),
    "cuts": ("Cut", "file_of", "load_cuts", "speaker_of", "text_of", "write_cuts", "write_manifest"),
    "loading": ("Loader", "make_loader"),
    "reading": ("read_samples",),
    "sampling": ("BatchLimits", "BatchOrder"),
    "shards": ("Shards", "is_sharded", "open_corpus", "write_shards"),
}
_HOME_OF = {name: f"asr.data.{home}" for home, names in _HOMES.items() for name in names}
__all__ = [
    "Batch",
    "BatchLimits",
    "BatchOrder",
    "Cut",
    "Encoding",
    "Loader",
    "Shards",
    "Variation",
    "file_of",
    "is_sharded",
    "load_cuts",
    "make_loader",
    "open_corpus",
    "read_samples",
    "speaker_of",
    "text_of",
    "write_cuts",
    "write_manifest",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        from importlib import import_module

        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'asr.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
