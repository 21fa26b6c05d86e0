"""A bundle whose weights are PyTorch modules: what training makes, and what the torch engine runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asr.bundle import CONFIG_FILE, WEIGHTS_FILE, Bundle, StoredAs
from asr.errors import AsrError, BundleError
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.text import Tokenizer


@dataclass
class TorchBundle:
    """A `Bundle` ready to compute or to train.

    Attributes:
        model: the acoustic model, in evaluation mode once loaded.
        log_mel: samples to features, with the statistics of the training data where it uses them.
        tokenizer, normalizer, training, decoding, stored_as: as in Bundle.
    """

    model: AcousticModel
    log_mel: LogMel
    tokenizer: Tokenizer
    normalizer: str
    training: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stored_as: StoredAs = "float32"

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "TorchBundle":
        """Read a bundle and make it ready to evaluate on `device`.

        Raises BundleError as `Bundle.load`, and for weights that do not fit the configuration.
        """
        return cls.of(Bundle.load(folder), device)

    @classmethod
    def of(cls, bundle: Bundle, device: str | torch.device = "cpu") -> "TorchBundle":
        """Make the modules of a bundle, ready to evaluate. Raises BundleError for weights that do not fit them."""
        folder = bundle.folder or Path("in memory")
        log_mel = LogMel(bundle.features)
        try:
            # The file brings the weights, and no configuration asks for more memory.
            with torch.device("meta"):
                model = AcousticModel(bundle.model, bundle.features.n_mels, bundle.tokenizer.vocab_size)
        except (AsrError, RuntimeError) as error:  # the latter for sizes beyond 64 bits
            raise BundleError(f"the bundle {folder} cannot be used: {error}") from error
        try:
            _load_weights(model, "model.", bundle.weights)
            _load_weights(log_mel, "log_mel.", bundle.weights)
        except RuntimeError as error:
            raise BundleError(
                f"{folder / WEIGHTS_FILE} does not fit the model that {CONFIG_FILE} describes: {error}"
            ) from error
        return cls(
            model.to(device).eval(),
            log_mel.to(device),
            bundle.tokenizer,
            bundle.normalizer,
            bundle.training,
            bundle.decoding,
            bundle.stored_as,
        )

    def bundle(self) -> Bundle:
        """Return the bundle with a copy of the modules' weights on the CPU."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"log_mel.{name}": value for name, value in self.log_mel.state_dict().items()}
        return Bundle(
            self.log_mel.config,
            self.model.config,
            self.tokenizer,
            self.normalizer,
            {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()},
            self.training,
            self.decoding,
            self.stored_as,
        )

    def save(self, folder: str | Path) -> None:
        """Write the bundle, whole or not at all. Raises BundleError as `Bundle.save`."""
        self.bundle().save(folder)

    @property
    def seconds_per_frame(self) -> float:
        """Return the seconds of audio from one frame of logits to the next."""
        return self.model.subsampling * self.log_mel.config.hop_length / self.log_mel.config.sample_rate


def _load_weights(module: nn.Module, part: str, weights: Mapping[str, np.ndarray]) -> None:
    """Make the arrays whose names begin with `part` the module's own. Raises RuntimeError for what does not fit."""
    tensors = {
        name.removeprefix(part): torch.from_numpy(weights[name]) for name in weights if name.startswith(part)
    }
    module.load_state_dict(tensors, assign=True)
