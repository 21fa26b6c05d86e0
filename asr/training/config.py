"""The configuration of a training run: dataclasses, read from YAML and from `--any.key value`."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr.data.augmentation import AugmentationConfig
from asr.errors import ConfigError, check_bounds
from asr.features import FeatureConfig, SpecAugmentConfig
from asr.model_config import ModelConfig

CONFIG = "config.yaml"  # of a run, in its folder


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        train: manifest of cuts, as `asr prepare` writes it, or a list of several; or a folder or http(s) URL of shards
            (`asr prepare --shar`), which are streamed.
        dev: manifest, or several, to measure the WER on after each epoch; other speakers than those of `train`.
        batch_seconds: seconds of audio in a batch, padding included; "auto" takes what the free memory allows.
        max_batch_size: most utterances in a batch.
        min_seconds, max_seconds: shorter and longer utterances are left out of training, and reported.
        speed_perturb: factors of which one is drawn for each utterance and epoch (Ko et al. 2015); () for none.
        join_utterances: up to how many utterances of a batch are joined into one, a number drawn for each batch; more
            than 1 teaches a model to hear long recordings, where one utterance follows another.
        sortagrad: go through the first epoch from the shortest to the longest (Amodei et al. 2016).
        workers: processes that decode audio and compute features while the model trains; 0 for none.
    """

    train: str | tuple[str, ...] = ()
    dev: str | tuple[str, ...] = ()
    batch_seconds: float | Literal["auto"] = 120.0
    max_batch_size: int = 64
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    speed_perturb: tuple[float, ...] = ()
    join_utterances: int = 1
    sortagrad: bool = False
    workers: int = 1

    def __post_init__(self):
        check_bounds("data", self, "batch_seconds", "max_seconds", "speed_perturb", above=0)
        check_bounds("data", self, "max_batch_size", "join_utterances", least=1)
        check_bounds("data", self, "min_seconds", "workers", least=0)


@dataclass(frozen=True)
class TextConfig:
    """How transcripts become tokens.

    Attributes:
        normalizer: name of the normalizer for references and hypotheses; stored in the bundle.
        tokenizer: "characters" of the training text, or "bpe" pieces learned from it.
        vocab_size: pieces of the BPE, blank included.
    """

    normalizer: str = "basic"
    tokenizer: Literal["characters", "bpe"] = "characters"
    vocab_size: int = 256

    def __post_init__(self):
        check_bounds("text", self, "vocab_size", least=2)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and its schedule.

    Attributes:
        learning_rate: the highest.
        weight_decay: decoupled, on matrices only.
        betas: decay of the first and second moments.
        schedule: after the warm-up "cosine" or "linear" decay to `final_share`, or "constant".
        warmup_epochs: epochs of linear rise from zero; fractions allowed.
        final_share: share of the learning rate at the end.
        gradient_clip: bound on the gradient's norm, the guard against exploding gradients; 0 for none.
        accumulate_batches: batches whose gradients make one step.
        layer_decay: factor on the learning rate for each layer further from the output; below 1 when fine-tuning.
        ema: decay of the exponential moving average of the weights that is evaluated and saved; 0 for none.
        average_checkpoints: at the end, average the weights of this many best epochs, and keep that model if its dev
            WER is lower; 0 for none.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    final_share: float = 0.01
    gradient_clip: float = 1.0
    accumulate_batches: int = 1
    layer_decay: float = 1.0
    ema: float = 0.0
    average_checkpoints: int = 0

    def __post_init__(self):
        rates = ("learning_rate", "weight_decay", "warmup_epochs", "gradient_clip", "average_checkpoints")
        check_bounds("optimizer", self, *rates, least=0)
        check_bounds("optimizer", self, "layer_decay", above=0)
        check_bounds("optimizer", self, "accumulate_batches", least=1)
        check_bounds("optimizer", self, "betas", "ema", least=0, below=1)
        check_bounds("optimizer", self, "final_share", least=0, most=1)


@dataclass(frozen=True)
class LossConfig:
    """What is added to the CTC loss.

    Attributes:
        intermediate_layers: recurrent layers, counted from 1, that are to recognize as well (Lee & Watanabe 2021); the
            output layer is shared, and the model transcribes as without them.
        intermediate_weight: share of the mean of their losses in the whole.
        lexicon: pronouncing dictionary, a word and its phones on each line; the intermediate layers are then to
            recognize phones instead of word pieces (Krishna et al. 2018). The phones become tokens of the model.
        label_smoothing: share of the divergence from equally likely tokens, against overconfidence (Kim et al. 2018).
        consistency: weight of the divergence between the outputs for two views of each utterance, masked and warped in
            different ways (Yao et al. 2025); 0.2 as a rule. A step then takes twice the time.
    """

    intermediate_layers: tuple[int, ...] = ()
    intermediate_weight: float = 0.3
    lexicon: str = ""
    label_smoothing: float = 0.0
    consistency: float = 0.0

    def __post_init__(self):
        check_bounds("loss", self, "intermediate_weight", "label_smoothing", least=0, most=1)
        check_bounds("loss", self, "consistency", least=0)

    @property
    def views(self) -> int:
        """How many versions of each utterance a batch holds."""
        return 2 if self.consistency else 1


@dataclass(frozen=True)
class RunConfig:
    """The run itself.

    Attributes:
        folder: where the run's checkpoints, logs and bundle go.
        epochs: passes over the training data.
        max_minutes: stop, as at the end, after the epoch in which this much time has passed; 0 for no limit.
        seed: of the initial weights, the order of the data and every random choice.
        accelerator: "auto", "cpu" or "gpu".
        devices: how many of them; "auto" for all.
        nodes: machines, each started by torchrun or SLURM.
        precision: "auto" is bfloat16 on a GPU that has it and float32 elsewhere. The CTC loss is always float32.
        threads: of the CPU; 0 leaves torch's choice.
        log_every: steps between the lines of the logs.
        deterministic: refuse operations whose result may differ from run to run.
        checkpoint_minutes: time between the checkpoints within an epoch; each epoch's end, Ctrl-C and SIGTERM save too.
        checkpoint_activations: compute the recurrent layers again in the backward pass: less memory, more time.
        bundle_weights: type in which the bundle stores its weights; float16 halves its size.
        warm_start: bundle to begin from; of the output layer the tokens that both know are kept.
        wandb: project of Weights & Biases that the curves go to as well; none without a name.
    """

    folder: str = "runs/asr"
    epochs: int = 50
    max_minutes: float = 0.0
    seed: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: int = 0
    log_every: int = 10
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    checkpoint_activations: bool = False
    bundle_weights: Literal["float32", "float16"] = "float32"
    warm_start: str = ""
    wandb: str = ""

    def __post_init__(self):
        check_bounds("run", self, "epochs", "devices", "nodes", "log_every", least=1)
        check_bounds("run", self, "max_minutes", "threads", "checkpoint_minutes", least=0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `asr train` can be told."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def configuration_parser() -> Any:
    """Give the jsonargparse parser whose keys are the fields of TrainConfig."""
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
            raise ConfigError(_first_lines(str(ex or message)))

    parser = Parser(prog="asr train", exit_on_error=True, default_env=False)
    parser.add_argument("--config", action="config", help="YAML file; later ones override earlier ones")
    parser.add_class_arguments(TrainConfig)
    return parser


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """Read `--config FILE` and `--any.key value` into a TrainConfig.

    Raises ConfigError that names an unknown key, with the nearest valid one, or a value of the wrong type.
    """
    parser = configuration_parser()
    valid = _valid_keys(parser)
    _refuse_unknown_keys(arguments, valid)
    parsed = parser.parse_args(list(arguments))
    config = parser.instantiate(parsed)
    return TrainConfig(**{name: config[name] for name in TrainConfig.__dataclass_fields__})


def config_text(config: TrainConfig) -> str:
    """Give every value in force as YAML, in the form that `--config` reads."""
    import yaml

    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: TrainConfig) -> dict[str, Any]:
    """Give every value in force as YAML has it: nested sections, and lists for tuples."""
    return json.loads(json.dumps(asdict(config)))


def different_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the keys of two `flat` configurations whose values differ; "auto", which stands for what is found, does not.

    >>> different_keys({"run.seed": 1, "data.batch_seconds": 40.0}, {"run.seed": 2, "data.batch_seconds": "auto"})
    ['run.seed']
    """
    return [
        key for key, value in now.items() if before.get(key, value) not in (value, "auto") and value != "auto"
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give {"section.key": value} of nested sections.

    >>> flat({"run": {"seed": 1}, "model": {"front_end": {"norm": "batch"}}})
    {'run.seed': 1, 'model.front_end.norm': 'batch'}
    """
    items: dict[str, Any] = {}
    for key, value in values.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def _valid_keys(parser: Any) -> set[str]:
    keys = {key for key in parser.get_defaults().as_flat().__dict__ if key != "config"}
    return keys | {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}


def _refuse_unknown_keys(arguments: Sequence[str], valid: set[str]) -> None:
    """Check the keys of the YAML files and the options before the values, to name the nearest valid key."""
    for position, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        key, _, value = argument[2:].partition("=")
        if key == "config":
            name = value or next(iter(arguments[position + 1 :]), "")
            if not name or name.startswith("--"):
                raise ConfigError("--config has no file behind it; expected one in YAML")
            path = Path(name)
            for nested in _keys_of(read_yaml(path)):
                if nested not in valid:
                    raise ConfigError(f"{path} has the unknown key {nested!r}{_nearest(nested, valid)}")
        elif key.rstrip("+") not in valid and key not in ("help", "print_config"):
            raise ConfigError(f"unknown option --{key}{_nearest(key, valid)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration's values as they are written; raises ConfigError for a file that holds none."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no configuration; expected keys such as data, model, run")
    for section in TrainConfig.__dataclass_fields__:
        if section in values and not isinstance(values[section], dict):
            raise ConfigError(
                f"{path}: the section {section} holds {values[section]!r}; expected keys, or leave it out"
            )
    return values


def _keys_of(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _keys_of(value, f"{prefix}{key}.")
    return keys


def _nearest(key: str, valid: set[str]) -> str:
    nearest = difflib.get_close_matches(key, valid, 1, cutoff=0.5)
    return f"; the nearest valid key is {nearest[0]!r}" if nearest else ""


def _first_lines(message: str) -> str:
    """Keep what a user needs of jsonargparse's message, on one line."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())[:400]
