"""Loaders over small corpora, with a small model's features and the letters a and b."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from asr.data import BatchLimits, BatchOrder, Encoding, Loader, Variation, make_loader
from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.text import CharacterTokenizer


def parted(options: dict[str, Any]) -> dict[str, Any]:
    """Sort options such as batch_seconds=5 and shuffle=True into make_loader's arguments."""

    def of(kind: type, **defaults: Any) -> Any:
        names = {field.name for field in fields(kind)}
        return kind(**defaults, **{name: options.pop(name) for name in names & options.keys()})

    options = dict(options)
    return {"limits": of(BatchLimits), "order": of(BatchOrder), "variation": of(Variation), **options}


def loader_of(cuts: Sequence, **options: Any) -> Loader:
    options = {"batch_seconds": 5.0, **options}
    encoding = Encoding(
        options.pop("log_mel", None) or LogMel(FeatureConfig(n_mels=8)),
        options.pop("tokenizer", None) or CharacterTokenizer(["a", "b"]),
        options.pop("normalizer", "none"),
        options.pop("keep_unspellable", False),
    )
    return make_loader(cuts, encoding, **parted(options))
