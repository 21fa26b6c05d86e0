"""The network: embedding -> recurrent layers, left to right -> scores of every token that may come next."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from asr.errors import ConfigError
from asr.lm.network import SHRINKAGE, NetworkConfig
from asr.model import UtteranceDropout
from asr.recurrent import RecurrentLayer

# Of each layer: (h,) or (h, c), each (1, batch, size).
States = list[tuple[Tensor, ...]]


class RecurrentLm(nn.Module):
    """A recurrent language model (Mikolov et al. 2010).

    Arguments: config; vocab_size tokens. Raises ConfigError for layers that cannot be as configured.

    >>> import torch
    >>> model = RecurrentLm(NetworkConfig(hidden_size=8, embedding_size=4), vocab_size=10)
    >>> hidden, states = model(torch.tensor([[0, 5, 7]]))
    >>> hidden.shape, model.log_probs(hidden).exp().sum(-1).allclose(torch.ones(1, 3))
    (torch.Size([1, 3, 8]), True)
    """

    def __init__(self, config: NetworkConfig, vocab_size: int):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        sizes = [config.embedding_size, *[config.output_size] * config.layers]
        self.recurrent = nn.ModuleList(_layer(config, size) for size in sizes[:-1])
        self.dropout = UtteranceDropout(config.dropout)
        clusters = list(config.clusters(vocab_size))
        self.output: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss
        if clusters:
            self.output = nn.AdaptiveLogSoftmaxWithLoss(sizes[-1], vocab_size, clusters, div_value=SHRINKAGE)
        else:
            self.output = nn.Linear(sizes[-1], vocab_size)
            if config.tied:
                self.output.weight = self.embedding.weight

    def forward(
        self, ids: Tensor, states: States | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, States]:
        """Read tokens (batch, time) int64 on from the states, zeros unless given, each row up to its length.

        Returns the last layer's output (batch, time, feature), from which the next tokens are predicted, and the states
        behind each row's end.
        """
        lengths = [ids.shape[1]] * len(ids) if lengths is None else lengths
        x, finals = self._embed(ids), []
        for index, layer in enumerate(self.recurrent):
            x, final = layer(x, lengths, states[index] if states else None)
            finals.append(final if isinstance(final, tuple) else (final,))
        return self.dropout(x), finals

    def _embed(self, ids: Tensor) -> Tensor:
        weight, rate = self.embedding.weight, self.config.embedding_dropout
        if self.training and rate:
            weight = weight * F.dropout(weight.new_ones(len(weight), 1), rate)
        return F.embedding(ids, weight)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the log-probabilities (n,), negated, of the tokens targets (n,) behind hidden (n, feature)."""
        if isinstance(self.output, nn.Linear):
            return F.cross_entropy(self.output(hidden), targets, reduction="none")
        return -self.output(hidden, targets).output

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities (batch, time, token) of what follows each place of hidden."""
        if isinstance(self.output, nn.Linear):
            return self.output(hidden).log_softmax(-1)
        return self.output.log_prob(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)


def _layer(config: NetworkConfig, input_size: int) -> RecurrentLayer:
    try:
        return RecurrentLayer(
            config.cell,
            input_size,
            config.hidden_size,
            proj_size=config.proj_size,
            bidirectional=False,
            layer_norm=config.layer_norm,
            input_dropout=config.dropout,
            recurrent_dropout=config.recurrent_dropout,
            weight_dropout=config.weight_dropout,
            forget_bias=config.forget_bias,
            init=config.init,
        )
    except ValueError as error:
        raise ConfigError(f"network: {error}") from error
