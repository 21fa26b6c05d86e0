"""What a run takes from the bundle that it begins from, known before any weight is read."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from asr.bundle import Bundle, find_bundle
from asr.errors import ConfigError
from asr.features import FeatureConfig
from asr.model_config import ModelConfig
from asr.wording import some

# What of a model the shape and the meaning of its weights rest on.
SIZES = (
    *("model.front_end.channels", "model.front_end.kernel_sizes", "model.front_end.strides"),
    *("model.front_end.norm", "model.cell", "model.layers", "model.hidden_size", "model.proj_size"),
    *("model.bidirectional", "model.layer_norm", "model.norm"),
)


def values_of_bundle(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a bundle fixes for a run that begins from it, and what is the bundle's unless set: {key: value} both.

    Features and sizes are fixed. Values are as YAML has them. Raises BundleError.
    """
    bundle = Bundle.load(find_bundle(name))
    return flat_sizes(bundle.features, bundle.model), {
        "text.normalizer": bundle.normalizer,
        "text.tokenizer": "bundle",
    }


def flat_sizes(features: FeatureConfig, model: ModelConfig) -> dict[str, Any]:
    """Return {key: value} of features and sizes, with lists for tuples."""
    values = json.loads(json.dumps({"features": asdict(features), "model": asdict(model)}))
    front_end = values["model"].pop("front_end")
    sizes = {f"model.{key}": value for key, value in values["model"].items()}
    sizes |= {f"model.front_end.{key}": value for key, value in front_end.items()}
    return {f"features.{key}": value for key, value in values["features"].items()} | {
        key: sizes[key] for key in SIZES
    }


def check_same(chosen: Mapping[str, Any], fixed: Mapping[str, Any], bundle: str) -> None:
    """Refuse values that contradict those of the bundle that a run begins from. Raises ConfigError.

    Strides over time may differ: they set the frames a second, and no weight depends on them.
    """
    different = [
        key for key, value in chosen.items() if _what_binds(key, value) != _what_binds(key, fixed[key])
    ]
    if different:
        values = "; ".join(f"{key} is {chosen[key]}, the model's is {fixed[key]}" for key in different)
        raise ConfigError(
            f"run.warm_start: {bundle} was trained with other settings: {values}. Leave {some(different)} out, or set "
            "the model's value"
        )


def _what_binds(key: str, value: Any) -> Any:
    return [mel for _time, mel in value] if key == "model.front_end.strides" else value
