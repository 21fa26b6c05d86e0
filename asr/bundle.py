"""A saved model: a folder with the weights, one readable configuration and the tokenizer. Loading never unpickles."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch

from asr import __version__
from asr.errors import AsrError, BundleError, ConfigError, TextError
from asr.features import FeatureConfig, LogMel
from asr.model import AcousticModel, ModelConfig
from asr.text import NORMALISERS, Tokenizer, load_tokenizer

FORMAT = 1  # raised when a bundle written before could no longer be read
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SHIPPED = Path(__file__).parent / "bundles" / "an4"  # small; what a command uses that is told of no other
SHIPPED_HEARS = "spelled letters, digits, dates and short commands in English"


@dataclass
class Bundle:
    """A recogniser ready to run: everything between samples and words.

    Attributes:
        model: the acoustic model, in evaluation mode once loaded.
        log_mel: samples to features, with the statistics of the training data where it uses them.
        tokenizer: token ids to text.
        normaliser: name of the normaliser its training text went through; references are to go through it too.
        training: what is worth knowing of the training, readable by people: data, steps, dev WER.
        decoding: the fields of `BeamConfig` that `asr lm tune` found best.
        stored_as: type of the weights in the file, "float32" or, half as large, "float16"; they compute in float32.
    """

    model: AcousticModel
    log_mel: LogMel
    tokenizer: Tokenizer
    normaliser: str
    training: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stored_as: str = "float32"

    def save(self, folder: str | Path) -> None:
        """Write the bundle, whole or not at all; an older one of the same name is replaced.

        Raises BundleError when the folder cannot be written, or exists and holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / CONFIG_FILE).is_file():
            raise BundleError(f"{folder} exists and is no bundle; choose another name or remove it")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                self._write(scratch)
                scratch.chmod(0o755)
                (scratch / WEIGHTS_FILE).chmod(0o644)  # safetensors and mkdtemp keep theirs to the user alone
                replaced = scratch.with_name(f"{scratch.name}.replaced")
                if folder.exists():
                    folder.rename(replaced)
                scratch.rename(folder)
                shutil.rmtree(replaced, ignore_errors=True)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise BundleError(f"cannot write the bundle {folder}: {error}") from error

    def _write(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"log_mel.{name}": value for name, value in self.log_mel.state_dict().items()}
        stored = {
            name: value.to(getattr(torch, self.stored_as)) if value.is_floating_point() else value
            for name, value in tensors.items()
        }
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in stored.items()},
                folder / WEIGHTS_FILE,
            )
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error
        self.tokenizer.save(folder)
        config = {
            "format": FORMAT,
            "asr_version": __version__,
            "normaliser": self.normaliser,
            "vocab_size": self.tokenizer.vocab_size,
            "features": asdict(self.log_mel.config),
            "model": asdict(self.model.config),
            "weights_sha256": _sha256(folder / WEIGHTS_FILE),
            "stored_as": self.stored_as,
            "training": dict(self.training),
            "decoding": dict(self.decoding),
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Bundle":
        """Read a bundle and make it ready to evaluate on `device`.

        Raises BundleError when the folder is missing, lacks a file, is damaged or was written by another version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        config = _read_config(folder)
        try:
            tokenizer = load_tokenizer(folder)
            log_mel = LogMel(from_dict(FeatureConfig, config["features"], "features"))
            model_config = from_dict(ModelConfig, config["model"], "model")
            if config["normaliser"] not in NORMALISERS:
                raise ConfigError(
                    f"normaliser {config['normaliser']!r} is unknown here; there are {', '.join(NORMALISERS)}"
                )
            if tokenizer.vocab_size != config["vocab_size"]:
                raise TextError(
                    f"its tokenizer has {tokenizer.vocab_size} tokens, its model {config['vocab_size']}"
                )
        except (KeyError, AsrError) as error:
            detail = f"{CONFIG_FILE} lacks the key {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"the bundle {folder} cannot be used: {detail}") from error
        model = AcousticModel(model_config, log_mel.config.n_mels, tokenizer.vocab_size)
        weights = folder / WEIGHTS_FILE
        if not weights.is_file():
            raise BundleError(f"the bundle {folder} lacks {WEIGHTS_FILE}; copy the whole folder again")
        if _sha256(weights) != config.get("weights_sha256"):
            raise BundleError(
                f"{weights} is damaged: its checksum differs from the one in {CONFIG_FILE}; copy the bundle again"
            )
        try:
            tensors = load_file(weights)
            for part, module in (("model.", model), ("log_mel.", log_mel)):
                module.load_state_dict(
                    {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
                )
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(
                f"{weights} does not fit the model that {CONFIG_FILE} describes: {error}"
            ) from error
        return cls(
            model.to(device).eval(),
            log_mel.to(device),
            tokenizer,
            config["normaliser"],
            config.get("training", {}),
            config.get("decoding", {}),
            config.get("stored_as", "float32"),
        )

    @property
    def seconds_per_frame(self) -> float:
        """Seconds of audio from one frame of logits to the next."""
        return self.model.subsampling * self.log_mel.config.hop_length / self.log_mel.config.sample_rate


def store_decoding(folder: str | Path, decoding: Mapping[str, Any]) -> None:
    """Write what `asr lm tune` found into a bundle's configuration, and touch nothing else in the folder.

    Raises BundleError where it cannot be written.
    """
    path = Path(folder) / CONFIG_FILE
    config = _read_config(Path(folder)) | {"decoding": dict(decoding)}
    scratch = path.with_name(f".{CONFIG_FILE}.part")
    try:
        scratch.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        scratch.replace(path)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise BundleError(
            f"there is no bundle {folder}; `asr train` writes one as runs/NAME/bundle, name that folder"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is no bundle, or not a whole one: it lacks {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise BundleError(f"{path} is not a bundle's configuration: it lacks the key 'format'")
    if config["format"] != FORMAT:
        raise BundleError(
            f"the bundle {folder} has format {config['format']} (asr {config.get('asr_version', 'unknown')}); this is "
            f"asr {__version__}, which reads format {FORMAT}: install the version that wrote it, or train again"
        )
    return config


def from_dict(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from JSON, refusing unknown keys by name; nested dataclasses and tuples are restored."""
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(hints)}")
    arguments = {}
    for item in fields(cls):
        if item.name in values:
            value = values[item.name]
            nested = hints[item.name]
            arguments[item.name] = (
                from_dict(nested, value, f"{where}.{item.name}") if is_dataclass(nested) else _tuples(value)
            )
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
