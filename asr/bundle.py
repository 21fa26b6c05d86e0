"""A saved model: a folder with the weights, one readable configuration and the tokenizer. Loading never unpickles."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from asr.errors import AsrError, BundleError, ConfigError, TextError
from asr.features import FeatureConfig, LogMel
from asr.model import AcousticModel, ModelConfig
from asr.text import NORMALIZERS, Tokenizer, load_tokenizer
from asr.version import __version__

FORMAT = 1  # raised when a bundle written before could no longer be read
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
StoredAs = Literal["float32", "float16"]
SHIPPED = Path(__file__).parent / "bundles" / "an4"  # small; what a command uses that is told of no other
SHIPPED_HEARS = "spelled letters, digits, dates and short commands in English"


@dataclass
class Bundle:
    """A recognizer ready to run: everything between samples and words.

    Attributes:
        model: the acoustic model, in evaluation mode once loaded.
        log_mel: samples to features, with the statistics of the training data where it uses them.
        tokenizer: token ids to text.
        normalizer: name of the normalizer its training text went through; references are to go through it too.
        training: what is worth knowing of the training, readable by people: data, steps, dev WER.
        decoding: the fields of `BeamConfig` that `asr lm tune` found best.
        stored_as: type of the weights in the file, "float32" or, half as large, "float16"; they compute in float32.
    """

    model: AcousticModel
    log_mel: LogMel
    tokenizer: Tokenizer
    normalizer: str
    training: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stored_as: StoredAs = "float32"

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
            "normalizer": self.normalizer,
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
            log_mel = LogMel(from_json(FeatureConfig, config["features"], "features"))
            model_config = from_json(ModelConfig, config["model"], "model")
            normalizer = from_json(str, config["normalizer"], "normalizer")
            training, decoding = (
                from_json(dict, config.get(key, {}), key) for key in ("training", "decoding")
            )
            stored_as = from_json(StoredAs, config.get("stored_as", "float32"), "stored_as")
            if normalizer not in NORMALIZERS:
                raise ConfigError(
                    f"normalizer {normalizer!r} is unknown here; there are {', '.join(NORMALIZERS)}"
                )
            if tokenizer.vocab_size != config["vocab_size"]:
                raise TextError(
                    f"its tokenizer has {tokenizer.vocab_size} tokens, its model {config['vocab_size']}"
                )
            with torch.device(
                "meta"
            ):  # the file brings the weights, and no configuration asks for more memory
                model = AcousticModel(model_config, log_mel.config.n_mels, tokenizer.vocab_size)
        except (KeyError, AsrError, RuntimeError) as error:  # the last for sizes beyond 64 bits
            detail = f"{CONFIG_FILE} lacks the key {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"the bundle {folder} cannot be used: {detail}") from error
        weights = folder / WEIGHTS_FILE
        if not weights.is_file():
            raise BundleError(f"the bundle {folder} lacks {WEIGHTS_FILE}; copy the whole folder again")
        if _sha256(weights) != config.get("weights_sha256"):
            raise BundleError(
                f"{weights} is damaged: its checksum differs from the one in {CONFIG_FILE}; copy the bundle again"
            )
        try:
            tensors = {
                name: value.float() if value.is_floating_point() else value
                for name, value in load_file(weights).items()
            }
            for part, module in (("model.", model), ("log_mel.", log_mel)):
                module.load_state_dict(
                    {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)},
                    assign=True,
                )
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(
                f"{weights} does not fit the model that {CONFIG_FILE} describes: {error}"
            ) from error
        return cls(
            model.to(device).eval(),
            log_mel.to(device),
            tokenizer,
            normalizer,
            training,
            decoding,
            stored_as,
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


def from_json(kind: Any, value: Any, where: str) -> Any:
    """Give a JSON value as the type that a dataclass declares: dataclasses from objects, tuples from lists.

    Keys that are missing keep their defaults. Raises ConfigError that names an unknown key, or a value of another type.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if unknown := sorted(set(value) - set(hints)):
            raise ConfigError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(hints)}")
        return kind(**{name: from_json(hints[name], each, f"{where}.{name}") for name, each in value.items()})
    if origin is tuple and isinstance(value, list):
        wanted = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(wanted) == len(value):
            return tuple(from_json(part, each, where) for part, each in zip(wanted, value, strict=True))
    if origin is Literal and value in parts:
        return value
    types = parts if origin is UnionType else (kind,)
    if type(value) in types:  # not isinstance: true is no number
        return value
    if float in types and type(value) is int:
        return float(value)
    if origin is Literal:
        expected = " or ".join(map(repr, parts))
    else:
        expected = "keys and values" if is_dataclass(kind) else str(kind) if origin else kind.__name__
    raise ConfigError(f"{where} is {value!r}; expected {expected}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
