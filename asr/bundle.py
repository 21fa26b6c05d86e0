"""A saved model: a folder with the weights, one readable configuration and the tokenizer. Loading never unpickles."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr import hub
from asr.errors import AsrError, BundleError, ConfigError, TextError
from asr.features import FeatureConfig
from asr.files import replacing, sha256
from asr.model_config import ModelConfig
from asr.text import NORMALIZERS, TOKENIZER_FILES, Tokenizer, load_tokenizer
from asr.typed_json import from_json
from asr.version import __version__
from asr.wording import nearest

# Raised when this version can no longer read bundles of the number before.
FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# A language model that belongs to the model: beam searches take it where no other is named.
LM_FILE = "lm.bin"
# Its words and their phones, for models with an output of phones: that search reads them in place of the tokens.
LEXICON_FILE = "lexicon.txt"
BUNDLE_FILES = (CONFIG_FILE, WEIGHTS_FILE, LM_FILE, LEXICON_FILE, *TOKENIZER_FILES)
StoredAs = Literal["float32", "float16"]
# Kinds of bundles, and what writes them.
RECOGNIZER, LANGUAGE_MODEL = "recognizer", "language model"
WRITERS = {RECOGNIZER: "asr train", LANGUAGE_MODEL: "asr lm train"}
BUNDLES = Path(__file__).parent / "bundles"
# What each model that comes with asr is for.
PURPOSES = {
    "an4": "English letters, digits, dates and short commands, and nothing else",
    "english": "English sentences read aloud, spelled letters, digits, dates and short commands",
}
# The model that commands use where no other is named.
SHIPPED = BUNDLES / "english"


@dataclass(frozen=True)
class Bundle:
    """Everything between samples and words, in numpy: an engine computes with it.

    Attributes:
        features: how samples become features.
        model: sizes of the acoustic model.
        tokenizer: token ids to text.
        normalizer: name of the normalizer that the training text went through; references are to go through it too.
        weights: arrays by name, floats in float32, read from the file when they are asked for: `model.` and
            `log_mel.` before the names of PyTorch's state dicts.
        training: what is worth knowing of the training, readable by people: data, steps, dev WER.
        decoding: the fields of `BeamConfig` that `asr lm tune` found best.
        stored_as: type of the weights in the file, "float32" or, half as large, "float16"; they compute in float32.
        folder: where the bundle was read; None for one that was not.

    >>> bundle = Bundle.load(BUNDLES / "an4")
    >>> bundle.sample_rate, bundle.seconds_per_frame, bundle.tokenizer.vocab_size
    (16000, 0.04, 130)
    """

    features: FeatureConfig
    model: ModelConfig
    tokenizer: Tokenizer
    normalizer: str
    weights: Mapping[str, np.ndarray]
    training: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stored_as: StoredAs = "float32"
    folder: Path | None = None

    @property
    def sample_rate(self) -> int:
        """Return the rate of the samples that the model takes, in Hz."""
        return self.features.sample_rate

    @property
    def seconds_per_frame(self) -> float:
        """Return the seconds of audio from one frame of log-probabilities to the next."""
        return self.model.front_end.subsampling * self.features.hop_length / self.features.sample_rate

    @property
    def lm(self) -> Path | None:
        """Return the file of the language model that lies in the bundle's folder; None where there is none."""
        return self._own(LM_FILE)

    @property
    def lexicon(self) -> Path | None:
        """Return the pronouncing dictionary in the bundle's folder; None where there is none."""
        return self._own(LEXICON_FILE)

    def _own(self, name: str) -> Path | None:
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None

    def save(self, folder: str | Path) -> None:
        """Write the bundle, whole or not at all; an older one of the same name is replaced.

        Raises BundleError when the folder cannot be written, or exists and holds something else.
        """
        write_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        write_weights(folder, self.weights, self.stored_as)
        self.tokenizer.save(folder)
        config = {
            "format": FORMAT,
            "asr_version": __version__,
            "normalizer": self.normalizer,
            "vocab_size": self.tokenizer.vocab_size,
            "features": asdict(self.features),
            "model": asdict(self.model),
            "weights_sha256": sha256(folder / WEIGHTS_FILE),
            "stored_as": self.stored_as,
            "training": dict(self.training),
            "decoding": dict(self.decoding),
        }
        write_config(folder, config)

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read a bundle; its weights are read once they are asked for.

        Raises BundleError when the folder is missing, lacks a file, is damaged or was written by another version.
        """
        folder = Path(folder)
        config = read_config(folder)
        try:
            tokenizer = load_tokenizer(folder)
            features = from_json(FeatureConfig, config["features"], "features")
            model = from_json(ModelConfig, config["model"], "model")
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
        except (KeyError, AsrError) as error:
            detail = f"{CONFIG_FILE} lacks the key {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"the bundle {folder} cannot be used: {detail}") from error
        weights = read_weights(folder, config)
        return cls(features, model, tokenizer, normalizer, weights, training, decoding, stored_as, folder)


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, whole or not at all; an older bundle of the same name is replaced.

    Raises BundleError when the folder cannot be written, or exists and holds something else.
    """
    import shutil
    import tempfile

    folder = Path(folder)
    if folder.exists() and not (folder / CONFIG_FILE).is_file():
        raise BundleError(f"{folder} exists and is no bundle; choose another name or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write(scratch)
            scratch.chmod(0o755)
            # safetensors and mkdtemp keep theirs to the user alone.
            (scratch / WEIGHTS_FILE).chmod(0o644)
            replaced = scratch.with_name(f"{scratch.name}.replaced")
            if folder.exists():
                folder.rename(replaced)
            scratch.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {folder}: {error}") from error


def write_weights(folder: Path, weights: Mapping[str, np.ndarray], stored_as: StoredAs = "float32") -> None:
    """Write a bundle's weights. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    stored = {
        name: np.asarray(value, stored_as if value.dtype.kind == "f" else None, order="C")
        for name, value in weights.items()
    }
    try:
        save_file(stored, folder / WEIGHTS_FILE)
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(str(error)) from error


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a bundle's configuration. Raises OSError."""
    (folder / CONFIG_FILE).write_text(_json(config), "utf-8")


def read_weights(folder: Path, config: Mapping[str, Any]) -> "StoredWeights":
    """Return a bundle's weights. Raises BundleError where they are missing, or not those of the configuration."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise BundleError(f"the bundle {folder} lacks {WEIGHTS_FILE}; copy the whole folder again")
    if sha256(path) != config.get("weights_sha256"):
        raise BundleError(
            f"{path} is damaged: its checksum differs from the one in {CONFIG_FILE}; copy the bundle again"
        )
    return StoredWeights(path)


class StoredWeights(Mapping):
    """The arrays of a safetensors file by name, floats in float32; each is read when it is asked for.

    Raises BundleError for a file that is none.
    """

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="np")
        except SafetensorError as error:
            raise BundleError(f"{path} is no file of weights: {error}; copy the bundle again") from error
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        value = self._file.get_tensor(name)
        return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape without reading it."""
        return tuple(self._file.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def available_models() -> list[str]:
    """Return the names of the models that come with asr.

    >>> available_models()
    ['an4', 'english']
    """
    return sorted(path.parent.name for path in BUNDLES.glob(f"*/{CONFIG_FILE}"))


def find_bundle(name: str | Path) -> Path:
    """Return the folder of a bundle by its name: a folder, a model that comes with asr, or OWNER/NAME of the hub.

    A folder in the working directory goes before a model of the same name. What is not yet in the hub's cache is
    downloaded, and @REVISION behind its name pins a branch, tag or commit. Raises BundleError for what is neither.
    """
    folder = Path(name)
    if folder.is_dir() and (folder / CONFIG_FILE).is_file():
        return folder
    names = available_models()
    if str(name) in names:
        return BUNDLES / str(name)
    if not folder.exists() and len(folder.parts) == 1:
        raise BundleError(
            f"there is no bundle {name}{nearest(str(name), names)}; expected the folder of a trained model, which "
            f"`asr train` writes as runs/NAME/bundle, or a model that comes with asr: {', '.join(names)}"
        )
    if not folder.exists() and hub.is_hub_name(str(name)):
        return hub.download(str(name), BUNDLE_FILES, damaged)
    return folder


def is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, by its configuration."""
    with suppress(BundleError):
        return "weights_sha256" in read_config(folder)
    return False


def damaged(folder: Path) -> str | None:
    """Return why a folder is no whole bundle, None if it is one whose weights have their checksum."""
    try:
        expected = read_config(folder).get("weights_sha256")
    except BundleError as error:
        return str(error)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return f"it lacks {WEIGHTS_FILE}"
    return (
        None if sha256(path) == expected else f"{WEIGHTS_FILE} has another checksum than {CONFIG_FILE} names"
    )


def check_own(name: str | Path) -> None:
    """Raise BundleError for a bundle that is not the user's to change: named as one of asr's, or in the hub's cache."""
    folder, place = find_bundle(name).resolve(), hub.cache()
    if place is not None and folder.is_relative_to(place):
        where = "is in the cache of the Hugging Face hub"
    elif not Path(name).is_dir() and folder.is_relative_to(BUNDLES.resolve()):
        where = "comes with asr"
    else:
        return
    raise BundleError(
        f"the model {name} {where}, where nothing is changed; copy it (cp -rL {folder} DIR) and give --model DIR, or "
        "store nothing with --dry-run"
    )


def store_decoding(folder: str | Path, decoding: Mapping[str, Any]) -> None:
    """Write what `asr lm tune` found into a bundle's configuration, and touch nothing else in the folder.

    Raises BundleError where it cannot be written.
    """
    path = Path(folder) / CONFIG_FILE
    config = read_config(Path(folder)) | {"decoding": dict(decoding)}
    try:
        with replacing(path) as scratch:
            scratch.write_text(_json(config), "utf-8")
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}") from error


def _json(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def read_config(folder: Path, kind: str = RECOGNIZER) -> dict[str, Any]:
    """Return the configuration of a bundle of a kind. Raises BundleError for what is none, or of another kind."""
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise BundleError(
            f"there is no bundle {folder}; `{WRITERS[kind]}` writes one as runs/NAME/bundle, name that folder"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is no bundle, or not a whole one: it lacks {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise BundleError(f"{path} is not a bundle's configuration: it lacks the key 'format'")
    if (found := config.get("kind", RECOGNIZER)) != kind:
        raise BundleError(
            f"{folder} is the bundle of a {found}; expected that of a {kind}, which `{WRITERS[kind]}` writes"
        )
    if config["format"] != FORMAT:
        raise BundleError(
            f"the bundle {folder} has format {config['format']} (asr {config.get('asr_version', 'unknown')}); this is "
            f"asr {__version__}, which reads format {FORMAT}: install the version that wrote it, or train again"
        )
    return config
