"""A saved recurrent language model: a folder as a recognizer's bundle. Loading it executes and unpickles nothing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr.bundle import (
    CONFIG_FILE,
    FORMAT,
    LANGUAGE_MODEL,
    WEIGHTS_FILE,
    read_config,
    read_weights,
    write_config,
    write_folder,
    write_weights,
)
from asr.errors import AsrError, BundleError, ConfigError, TextError
from asr.files import sha256
from asr.lm.network import NetworkConfig
from asr.lm.units import Units, load_units
from asr.text import NORMALIZERS
from asr.typed_json import from_json
from asr.version import __version__

UnitsKind = Literal["words", "tokens"]


@dataclass(frozen=True)
class LmBundle:
    """A recurrent language model in numpy.

    Attributes:
        network: its sizes.
        units: its tokens.
        weights: arrays by name, as PyTorch's state dict names them.
        training: what is worth knowing of the training, readable by people.
        folder: where the bundle was read; None for one that was not.
    """

    network: NetworkConfig
    units: Units
    weights: Mapping[str, np.ndarray]
    training: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def save(self, folder: str | Path) -> None:
        """Write the bundle, whole or not at all. Raises BundleError where that cannot be done."""
        write_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        weights = dict(self.weights)
        if self.network.tied:  # stored once, as the embedding
            weights.pop("output.weight", None)
        write_weights(folder, weights)
        self.units.save(folder)
        config = {
            "format": FORMAT,
            "kind": LANGUAGE_MODEL,
            "asr_version": __version__,
            "units": self.units.kind,
            "normalizer": self.units.normalizer,
            "vocab_size": self.units.size,
            "network": asdict(self.network),
            "weights_sha256": sha256(folder / WEIGHTS_FILE),
            "training": dict(self.training),
        }
        write_config(folder, config)

    @classmethod
    def load(cls, folder: str | Path) -> "LmBundle":
        """Read a bundle. Raises BundleError where it is missing, damaged, or no language model's."""
        folder = Path(folder)
        config = read_config(folder, LANGUAGE_MODEL)
        try:
            network = from_json(NetworkConfig, config["network"], "network")
            kind = from_json(UnitsKind, config["units"], "units")
            normalizer = from_json(str, config["normalizer"], "normalizer")
            if normalizer not in NORMALIZERS:
                raise ConfigError(
                    f"normalizer {normalizer!r} is unknown here; there are {', '.join(NORMALIZERS)}"
                )
            units = load_units(folder, kind, normalizer)
            if units.size != config["vocab_size"]:
                raise TextError(
                    f"its vocabulary has {units.size} tokens, its network {config['vocab_size']}; copy the whole "
                    "folder again"
                )
        except (KeyError, AsrError) as error:
            detail = f"{CONFIG_FILE} lacks the key {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"the bundle {folder} cannot be used: {detail}") from error
        weights = read_weights(folder, config)
        _check_sizes(folder, network, units.size, weights)
        return cls(network, units, weights, config.get("training", {}), folder)


def _check_sizes(
    folder: Path, network: NetworkConfig, vocab_size: int, weights: Mapping[str, np.ndarray]
) -> None:
    """Raise BundleError where the first and the last weights are not those of the configuration."""
    expected = {"embedding.weight": (vocab_size, network.embedding_size)}
    if clusters := network.clusters(vocab_size):
        expected["output.head.weight"] = (clusters[0] + len(clusters), network.output_size)
    elif not network.tied:
        expected["output.weight"] = (vocab_size, network.output_size)
    for name, shape in expected.items():
        found = weights[name].shape if name in weights else "missing"
        if found != shape:
            raise BundleError(
                f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {name} is {found}, expected {shape}; copy the "
                "bundle again"
            )
