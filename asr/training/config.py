"""The configuration of a training run as dataclasses, whose docstrings explain every key to `asr train --help`."""

from dataclasses import dataclass, field
from typing import Literal

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
        train_weights: weight of each manifest of `train`, how often its utterances come in an epoch: 2.5 is twice or
            three times, drawn anew for each epoch, 0.1 in every tenth; () for once each.
        dev: manifest, or several, to measure the WER on after each epoch, of several also each one's; other speakers
            than those of `train`.
        batch_seconds: seconds of audio in a batch, padding included; "auto" takes what the free memory allows.
        max_batch_size: most utterances in a batch.
        min_seconds: shortest utterance to train on; shorter ones are left out and reported.
        max_seconds: longest utterance to train on; longer ones are left out and reported.
        speed_perturb: factors of which one is drawn for each utterance and epoch (Ko et al. 2015); () for none.
        join_utterances: most utterances of a batch that are joined into one, a number drawn for each batch; more than 1
            teaches a model to recognize long recordings, where one utterance follows another.
        sortagrad: order of the first epoch from the shortest to the longest utterance (Amodei et al. 2016).
        curriculum_epochs: number of first epochs that leave out long utterances (Bengio et al. 2009); 0 for none.
        curriculum_seconds: longest utterance of the first of these epochs; the bound rises evenly to the longest.
        workers: processes that decode audio and compute features while the model trains; 0 for none.
    """

    train: str | tuple[str, ...] = ()
    train_weights: tuple[float, ...] = ()
    dev: str | tuple[str, ...] = ()
    batch_seconds: float | Literal["auto"] = 120.0
    max_batch_size: int = 64
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    speed_perturb: tuple[float, ...] = ()
    join_utterances: int = 1
    sortagrad: bool = False
    curriculum_epochs: int = 0
    curriculum_seconds: float = 4.0
    workers: int = 1

    def __post_init__(self):
        check_bounds("data", self, "batch_seconds", "max_seconds", "speed_perturb", above=0)
        check_bounds("data", self, "train_weights", "curriculum_seconds", above=0)
        check_bounds("data", self, "max_batch_size", "join_utterances", least=1)
        check_bounds("data", self, "min_seconds", "workers", "curriculum_epochs", least=0)
        self._check_sets()

    def _check_sets(self) -> None:
        if self.min_seconds > self.max_seconds:
            raise ConfigError(
                f"data.min_seconds is {self.min_seconds} and data.max_seconds {self.max_seconds}; expected no less"
            )
        manifests = [self.train] if isinstance(self.train, str) else self.train
        if self.train_weights and len(self.train_weights) != len(manifests):
            raise ConfigError(
                f"data.train_weights is {self.train_weights}, {len(self.train_weights)} weights, and data.train names "
                f"{len(manifests)} manifests; expected one weight for each"
            )


@dataclass(frozen=True)
class TextConfig:
    """How transcripts become tokens.

    Attributes:
        normalizer: name of the normalizer for references and hypotheses; stored in the bundle.
        tokenizer: "characters" of the training text, "bpe" pieces learned from it, or those of the "bundle" that
            `run.warm_start` names, if they spell the training text.
        vocab_size: pieces of the BPE, blank included.
    """

    normalizer: str = "basic"
    tokenizer: Literal["characters", "bpe", "bundle"] = "characters"
    vocab_size: int = 256

    def __post_init__(self):
        check_bounds("text", self, "vocab_size", least=2)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and its schedule.

    Attributes:
        learning_rate: highest learning rate, at the end of the warm-up.
        weight_decay: decoupled decay of matrices.
        betas: decay of the first and second moments.
        schedule: course after the warm-up: "cosine" or "linear" decay to `final_share`, or "constant".
        warmup_epochs: epochs of linear rise from zero; fractions allowed.
        final_share: share of the learning rate at the end.
        gradient_clip: bound on the gradient's norm, the guard against exploding gradients; 0 for none.
        accumulate_batches: batches whose gradients make one step.
        layer_decay: factor on the learning rate for each layer further from the output; below 1 when fine-tuning.
        ema: decay of the exponential moving average of the weights that is evaluated and saved; 0 for none.
        average_checkpoints: best epochs whose weights are averaged at the end; that model is kept if its dev WER is
            lower; 0 for none.
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
            output layer is shared, and the model transcribes as without them. The last is among them with `lexicon`
            only.
        intermediate_weight: share of the mean of their losses in the whole.
        lexicon: pronouncing dictionary, a word and its phones on each line; the intermediate layers are then to
            recognize phones instead of word pieces (Krishna et al. 2018), by an output layer of their own. Behind the
            last layer it lets a beam search go by pronunciation; see `asr.decoding.pronouncing`.
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
        folder: folder of the run's checkpoints, logs and bundle.
        epochs: passes over the training data.
        max_minutes: time after which the run ends with the epoch it is in; 0 for no limit.
        seed: seed of the initial weights, the order of the data and every random choice.
        accelerator: kind of device.
        devices: number of devices; "auto" for all.
        nodes: machines, each started by torchrun or SLURM.
        precision: type that matrices are multiplied in; "auto" is bfloat16 on a GPU that has it and float32
            elsewhere. The CTC loss is always float32.
        threads: threads of the CPU; 0 for torch's choice.
        log_every: steps between the lines of the logs.
        deterministic: refusal of operations whose result may differ from run to run.
        checkpoint_minutes: time between the checkpoints within an epoch; each epoch's end, Ctrl-C and SIGTERM save too.
        checkpoint_activations: recomputation of the recurrent layers in the backward pass: less memory, more time.
        bundle_weights: type in which the bundle stores its weights; float16 halves its size.
        warm_start: bundle to begin from, a folder or the name of one that comes with asr; features, sizes and
            normalizer are then the bundle's unless set, and of the output layer the tokens that both know are kept.
        wandb: project of Weights & Biases that the curves go to as well; "" for none.
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
    """Every setting of `asr train`."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self):
        if self.data.curriculum_epochs and self.data.sortagrad:
            raise ConfigError(
                f"data.curriculum_epochs is {self.data.curriculum_epochs} and data.sortagrad true; expected one of them"
            )
        last = self.model.layers if self.loss.lexicon else self.model.layers - 1
        if not all(1 <= layer <= last for layer in self.loss.intermediate_layers):
            raise ConfigError(
                f"loss.intermediate_layers is {list(self.loss.intermediate_layers)} and model.layers "
                f"{self.model.layers}; expected layers from 1 to {self.model.layers - 1}, below the last, or, with "
                "loss.lexicon, the last as well"
            )
        if self.text.tokenizer == "bundle" and not self.run.warm_start:
            raise ConfigError(
                'text.tokenizer is "bundle" and run.warm_start ""; expected a bundle, or another tokenizer'
            )
