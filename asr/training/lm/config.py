"""The configuration of a language model's training, whose docstrings explain every key to `asr lm train --help`."""

from dataclasses import dataclass, field
from typing import Literal

from asr.errors import ConfigError, check_bounds
from asr.lm.network import NetworkConfig


@dataclass(frozen=True)
class LmRunConfig:
    """The run itself.

    Attributes:
        folder: folder of the run's checkpoints, logs and language model (-o).
        epochs: passes over the training text; fractions allowed.
        max_minutes: time after which the run ends with a last look at dev; 0 for no limit.
        dev_per_epoch: times in an epoch at which the perplexity on dev is measured and the model is saved if it is the
            best so far.
        seed: seed of the initial weights, the order of the sentences and every random choice.
        threads: threads of the CPU; 0 for torch's choice.
        log_every: steps between the lines of the logs.
        checkpoint_minutes: time between checkpoints; each look at dev, Ctrl-C and SIGTERM save too.
    """

    folder: str = "runs/lm"
    epochs: float = 10.0
    max_minutes: float = 0.0
    dev_per_epoch: int = 1
    seed: int = 1
    threads: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 10.0

    def __post_init__(self):
        check_bounds("run", self, "epochs", above=0)
        check_bounds("run", self, "dev_per_epoch", "log_every", least=1)
        check_bounds("run", self, "max_minutes", "threads", "checkpoint_minutes", least=0)


@dataclass(frozen=True)
class LmDataConfig:
    """The text.

    Attributes:
        train: texts of a sentence a line, also compressed, or manifests of cuts (TEXT).
        dev: texts to measure the perplexity on, of other books or speakers; () holds out sentences of `train`.
        hold_out: share of the sentences that is held out where there is no `dev`, drawn at random.
        order: order of the sentences: "shuffled" anew in each epoch, for a model that scores single sentences, or
            "read" as they stand.
        batch_size: places of the text that are read side by side.
        chunk: tokens that the gradient goes back through; the state is carried on from chunk to chunk.
    """

    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    hold_out: float = 0.02
    order: Literal["shuffled", "read"] = "shuffled"
    batch_size: int = 32
    chunk: int = 35

    def __post_init__(self):
        check_bounds("data", self, "batch_size", "chunk", least=1)
        check_bounds("data", self, "hold_out", above=0, below=1)


@dataclass(frozen=True)
class UnitsConfig:
    """What the model predicts one after the other.

    Attributes:
        units: "words", "characters", or "pieces" of words.
        model: bundle of a recognizer (--model), whose normalizer the text goes through, and whose tokens are the
            "pieces".
        normalizer: name of the normalizer of the text, unless a `model` has one.
        most_words: words of the vocabulary, the most frequent ones; the others are one, `<unk>`.
        min_count: occurrences from which a word is in the vocabulary.
        vocab_size: pieces that are learned from the text where no `model` has them.
    """

    units: Literal["words", "characters", "pieces"] = "words"
    model: str = ""
    normalizer: str = "basic"
    most_words: int = 50_000
    min_count: int = 1
    vocab_size: int = 1000

    def __post_init__(self):
        check_bounds("text", self, "most_words", least=3)
        check_bounds("text", self, "min_count", least=1)
        check_bounds("text", self, "vocab_size", least=2)


@dataclass(frozen=True)
class LmOptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and its schedule.

    Attributes:
        learning_rate: highest learning rate, at the end of the warm-up.
        weight_decay: decoupled decay of matrices.
        betas: decay of the first and second moments.
        schedule: course after the warm-up: "cosine" or "linear" decay to `final_share`, or "constant".
        warmup_epochs: epochs of linear rise from zero; fractions allowed.
        final_share: share of the learning rate at the end.
        gradient_clip: bound on the gradient's norm, the guard against exploding gradients; 0 for none.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = 0.1
    final_share: float = 0.02
    gradient_clip: float = 1.0

    def __post_init__(self):
        check_bounds("optimizer", self, "learning_rate", "weight_decay", "warmup_epochs", least=0)
        check_bounds("optimizer", self, "gradient_clip", least=0)
        check_bounds("optimizer", self, "betas", least=0, below=1)
        check_bounds("optimizer", self, "final_share", least=0, most=1)


@dataclass(frozen=True)
class LmConfig:
    """Every setting of `asr lm train`."""

    run: LmRunConfig = field(default_factory=LmRunConfig)
    data: LmDataConfig = field(default_factory=LmDataConfig)
    text: UnitsConfig = field(default_factory=UnitsConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: LmOptimizerConfig = field(default_factory=LmOptimizerConfig)

    def __post_init__(self):
        if self.data.dev and set(self.data.dev) & set(self.data.train):
            raise ConfigError(
                f"data.dev and the training text share {', '.join(sorted(set(self.data.dev) & set(self.data.train)))}; "
                "expected texts that were not trained on"
            )
