"""CTC beam search on a GPU, without a language model: torchaudio's `cuda_ctc_decoder` behind our interface."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asr.decoding.alignment import align
from asr.decoding.greedy import Hypothesis
from asr.text import Tokenizer

LARGEST_BEAM = 128  # its kernels end the program where the beam is larger


class CudaBeamSearch:
    """Decode with a beam on the GPU that the logits are on: call it with logits and lengths as `greedy`.

    Arguments:
        tokenizer: the model's.
        beam_size, nbest: hypotheses kept after each frame, and given back; no more than `fits` allows.
        sure_blank: probability of blank above which a frame is skipped.
        decoder: what decodes log probabilities (batch, frame, token) and lengths (batch,) int32 on a GPU into lists
            of hypotheses with `tokens` and `score`, best first; torchaudio's where none is given.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        beam_size: int,
        nbest: int,
        sure_blank: float,
        decoder: Callable[[Tensor, Tensor], Sequence[Sequence[Any]]] | None = None,
    ):
        self.tokenizer, self.nbest, self.sure_blank = tokenizer, nbest, sure_blank
        self.beam_size, self.decoder = beam_size, decoder
        self._decoders: dict[tuple[int, int], Callable] = {}  # by device and stream

    @staticmethod
    def fits(tokenizer: Tokenizer, beam_size: int, nbest: int) -> bool:
        """Whether the kernels can search as far; they keep no more hypotheses than there are tokens."""
        return max(beam_size, nbest) <= LARGEST_BEAM and nbest <= tokenizer.vocab_size

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Decode a batch: logits (batch, frame, token), unnormalized or log probabilities; lengths (batch,) int64."""
        log_probs = logits.float().log_softmax(-1)
        inside = torch.arange(logits.shape[1], device=logits.device) < lengths.to(logits.device)[:, None]
        blank = log_probs[..., 0]
        silence = [Hypothesis([], [], [], score) for score in blank.where(inside, 0).sum(1).tolist()]
        # The decoder says anything of an utterance all of whose frames it skips.
        said = (inside & (blank < math.log(self.sure_blank))).any(1).nonzero()[:, 0]
        if len(said):
            with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
                decode = self.decoder or self._torchaudio_decoder()
                found = decode(log_probs[said].contiguous(), lengths.to(logits.device)[said].int())
            for i, results in zip(said.tolist(), found, strict=True):
                silence[i] = self._best(results, log_probs[i, : lengths[i]], silence[i])
        return silence

    def _torchaudio_decoder(self) -> Callable:
        """Give the decoder of the current device and stream: torchaudio's keeps to those that it was made on."""
        here = torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
        if here not in self._decoders:
            from torchaudio.models.decoder import cuda_ctc_decoder

            # All of the beam comes back, for several of it may spell the same text.
            kept = min(self.beam_size, self.tokenizer.vocab_size)
            self._decoders[here] = cuda_ctc_decoder(
                self.tokenizer.tokens, kept, self.beam_size, self.sure_blank
            )
        return self._decoders[here]

    def _best(self, results: Sequence[Any], log_probs: Tensor, silence: Hypothesis) -> Hypothesis:
        """Give the best result, its tokens where they align, with the next as its alternatives."""
        best: dict[str, Hypothesis] = {}
        for result in results:
            tokens = list(result.tokens)
            spelled = " ".join(self.tokenizer.decode(tokens).split())
            if spelled not in best and len(best) < self.nbest:
                placed = align(log_probs, tokens) if tokens else silence
                best[spelled] = replace(placed, score=float(result.score))
        first, *others = best.values()
        return replace(first, alternatives=tuple(others))
