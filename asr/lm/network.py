"""Sizes of a recurrent language model: a configuration that needs no PyTorch."""

from dataclasses import dataclass
from typing import Literal

from asr.errors import ConfigError, check_bounds
from asr.model_config import MOST_LAYERS, MOST_UNITS

# Vocabularies from this size on have an adaptive softmax unless told otherwise, and these are its borders.
LARGE_VOCABULARY = 10_000
CUTOFFS = (2_000, 10_000)
# Each cluster of rarer words has this many times fewer dimensions than the one before (Grave et al. 2017).
SHRINKAGE = 4


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a recurrent language model, which reads from left to right and predicts the next token.

    Attributes:
        cell: recurrent cell: lstm, peephole, cifg, cifg_peephole, gru or rnn_tanh.
        layers: recurrent layers.
        hidden_size: units of a layer.
        embedding_size: numbers that stand for a token at the input.
        proj_size: width that each layer's output is projected to, 0 for none (LSTM family; Sak et al. 2014).
        tied: use of the embedding's weights in the output layer (Press & Wolf 2017), which needs a layer's output as
            wide as the embedding, and a full softmax.
        softmax: "full" scores every token in each step, "adaptive" the frequent ones and only the cluster of rare ones
            that it needs (Grave et al. 2017); "auto" is adaptive from 10 000 tokens on, unless tied.
        cutoffs: ranks of frequency at which the clusters of an adaptive softmax begin; () for 2000 and 10 000.
        layer_norm: layer normalization inside the cell (LSTM family without peepholes).
        dropout: variational dropout before each layer and the output, one mask a sequence (Gal & Ghahramani 2016).
        embedding_dropout: share of tokens whose embedding is zero, the same in a whole step (Merity et al. 2018).
        recurrent_dropout: variational dropout on the recurrent connections.
        weight_dropout: DropConnect on the recurrent weights (Merity et al. 2018).
        init: initialization of the recurrent layers, "torch" (uniform) or "orthogonal".
        forget_bias: initial value of the forget gates' bias; None leaves the initialization's.
    """

    cell: str = "lstm"
    layers: int = 1
    hidden_size: int = 512
    embedding_size: int = 256
    proj_size: int = 0
    tied: bool = False
    softmax: Literal["auto", "full", "adaptive"] = "auto"
    cutoffs: tuple[int, ...] = ()
    layer_norm: bool = False
    dropout: float = 0.1
    embedding_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    init: Literal["torch", "orthogonal"] = "torch"
    forget_bias: float | None = None

    def __post_init__(self):
        # A model file of any larger size is damaged, or made to exhaust the memory.
        check_bounds("network", self, "layers", least=1, most=MOST_LAYERS)
        check_bounds("network", self, "hidden_size", "embedding_size", least=1, most=MOST_UNITS)
        check_bounds("network", self, "proj_size", least=0, most=MOST_UNITS)
        check_bounds("network", self, "cutoffs", least=1)
        rates = ("dropout", "embedding_dropout", "recurrent_dropout", "weight_dropout")
        check_bounds("network", self, *rates, least=0, below=1)
        if list(self.cutoffs) != sorted(set(self.cutoffs)):
            raise ConfigError(f"network.cutoffs is {list(self.cutoffs)}; expected rising ranks")
        if self.tied and self.softmax == "adaptive":
            raise ConfigError(
                "network.tied is true and network.softmax adaptive, whose clusters have widths of their own; expected "
                "one of them"
            )
        if self.tied and self.output_size != self.embedding_size:
            raise ConfigError(
                f"network.tied is true, a layer's output is {self.output_size} wide and the embedding "
                f"{self.embedding_size}; expected the same width: set network.proj_size or network.embedding_size"
            )

    @property
    def output_size(self) -> int:
        """Return the width of a layer's output."""
        return self.proj_size or self.hidden_size

    def clusters(self, vocab_size: int) -> tuple[int, ...]:
        """Return the ranks at which an adaptive softmax's clusters begin; () where the softmax is full.

        >>> NetworkConfig().clusters(20_000), NetworkConfig().clusters(300)
        ((2000, 10000), ())
        """
        if self.softmax == "full" or self.tied:
            return ()
        if self.softmax == "auto" and vocab_size < LARGE_VOCABULARY:
            return ()
        ranks = tuple(rank for rank in self.cutoffs or CUTOFFS if rank < vocab_size)
        # The last cluster has one dimension at least.
        return tuple(rank for i, rank in enumerate(ranks, 1) if SHRINKAGE**i <= self.output_size)
