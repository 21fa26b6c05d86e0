"""Dev after an epoch: what `asr evaluate` would measure of the model, and the loss beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor

from asr.ctc import ctc_loss, log_probs_of, unalignable
from asr.data import Batch, Loader
from asr.decoding import greedy
from asr.errors import AlignmentError
from asr.model import AcousticModel
from asr.scoring import score
from asr.text import BLANK
from asr.torch_bundle import TorchBundle
from asr.training.distributed import gather_dicts, total
from asr.training.watch import RunAborted

Pairs = list[tuple[str, str, str]]  # (id, reference, hypothesis) each


@dataclass(frozen=True)
class DevCounts:
    """What is counted on dev; counts of batches and of processes add up.

    Attributes:
        errors, words: word errors, and words of the references.
        character_errors, characters: the same of characters.
        blanks, frames: frames whose best token is blank, and all.
        entropy: sum over the frames, nats.
        loss, tokens: CTC loss, summed over the tokens of what can be aligned, nats, and these tokens.
    """

    errors: float = 0.0
    words: float = 0.0
    character_errors: float = 0.0
    characters: float = 0.0
    blanks: float = 0.0
    frames: float = 0.0
    entropy: float = 0.0
    loss: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: "DevCounts") -> "DevCounts":
        return DevCounts(*(mine + more for mine, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def wer(self) -> float:
        """Word error rate."""
        return self.errors / max(self.words, 1)

    def measures(self) -> dict[str, float]:
        """Return loss, WER, CER, share of blank frames and mean entropy of a frame, as the logs name them.

        >>> DevCounts(errors=1, words=4, character_errors=3, characters=12).measures()["dev_wer"]
        0.25
        """
        return {
            "dev_loss": self.loss / self.tokens if self.tokens else float("nan"),
            "dev_wer": self.wer,
            "dev_cer": self.character_errors / max(self.characters, 1),
            "blank_share": self.blanks / max(self.frames, 1),
            "entropy": self.entropy / max(self.frames, 1),
        }


def word_counts(references: Sequence[str], hypotheses: Sequence[str], normalizer: str) -> DevCounts:
    """Count the errors of texts, normalized as `asr evaluate` does.

    >>> word_counts(["one two"], ["one"], "basic").wer
    0.5
    """
    report = score(references, hypotheses, normalizer=normalizer, bootstrap=0)
    words, characters = report.word_errors, report.character_errors
    return DevCounts(words.errors, report.words, characters.errors, characters.length)


def frame_counts(logits: Tensor, lengths: Tensor) -> DevCounts:
    """Count blanks and entropy of logits (batch, frame, token) within lengths (batch,)."""
    inside = torch.arange(logits.shape[1]) < lengths.cpu().unsqueeze(1)
    log_probs = logits.float().log_softmax(-1).cpu()[inside]
    blanks = int((log_probs.argmax(-1) == BLANK).sum())
    entropy = -float((log_probs.exp() * log_probs).sum())
    return DevCounts(blanks=blanks, frames=len(log_probs), entropy=entropy)


def loss_counts(logits: Tensor, lengths: Tensor, batch: Batch) -> DevCounts:
    """Sum the CTC loss over the tokens of the utterances that can be aligned; NaN for a model that diverged."""
    bad = unalignable(lengths, batch.tokens, batch.token_lengths)
    good = [index for index in range(len(batch.ids)) if index not in bad]
    if not good:
        return DevCounts()
    counts = batch.token_lengths[good]
    tokens = float(counts.sum())
    try:
        mean = ctc_loss(logits[good], lengths[good], batch.tokens[good], counts)
    except AlignmentError:  # training reports it
        return DevCounts(loss=float("nan"), tokens=tokens)
    return DevCounts(loss=float(counts.sum() * mean), tokens=tokens)


@dataclass
class Validation:
    """Dev of a run: measures a model on it, over all processes.

    Arguments: fabric; bundle, of which tokenizer and normalizer are used; loader of dev; corpora, {id: corpus}, whose
    WERs are measured apart if there are several; before_batch, called by all processes together before each batch.
    Attributes: pairs, what was recognized in this process the last time.
    """

    fabric: Fabric
    bundle: TorchBundle
    loader: Loader
    corpora: Mapping[str, str] = field(default_factory=dict)
    before_batch: Callable[[], None] = lambda: None
    pairs: Pairs = field(default_factory=list)

    @torch.no_grad()
    def measure(self, model: AcousticModel) -> dict[str, float]:
        """Return dev's measures, decoded greedily, and each corpus's as `dev_wer/NAME`.

        Raises RunAborted where dev holds no word that can be measured on.
        """
        self.pairs = []
        counts = DevCounts()
        self.loader.set_epoch(0)
        batches = iter(self.loader)
        for _ in range(len(self.loader)):  # as many in each process, though of some nothing can be read
            self.before_batch()
            if (batch := next(batches, None)) is not None:
                counts += self._count(model, batch.to(self.fabric.device))
        counts = DevCounts(*total(self.fabric, astuple(counts)))
        if not counts.words:
            self._refuse()
        return counts.measures() | self._by_corpus()

    def _count(self, model: AcousticModel, batch: Batch) -> DevCounts:
        logits, lengths = model(batch.features, batch.feature_lengths)
        best = greedy(log_probs_of(logits, lengths))
        hypotheses = [self.bundle.tokenizer.decode(hypothesis.tokens) for hypothesis in best]
        self.pairs += zip(batch.ids, batch.texts, hypotheses, strict=True)
        words = word_counts(batch.texts, hypotheses, self.bundle.normalizer)
        return words + frame_counts(logits, lengths) + loss_counts(logits, lengths, batch)

    def _by_corpus(self) -> dict[str, float]:
        names = list(dict.fromkeys(self.corpora.values()))
        if len(names) < 2:
            return {}
        measures = {}
        for name in names:
            pairs = [pair for pair in self.pairs if self.corpora.get(pair[0]) == name]
            references, hypotheses = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
            counts = word_counts(references, hypotheses, self.bundle.normalizer) if pairs else DevCounts()
            counts = DevCounts(*total(self.fabric, astuple(counts)))
            measures[f"dev_wer/{name}"] = counts.wer
        return measures

    def _refuse(self) -> None:
        reasons = list(gather_dicts(self.fabric, self.loader.left_out).items())
        because = f", such as {reasons[0][0]}: {reasons[0][1]}" if reasons else ""
        raise RunAborted(f"data.dev holds no word that can be measured on{because}; give other dev data")
