"""CTC beam search on a GPU, without a language model: torchaudio's `cuda_ctc_decoder` behind our interface."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding import BeamConfig, Hypothesis, align
from asr.decoding.beam import SURE_BLANK
from asr.text import BLANK, Tokenizer

LARGEST_BEAM = 128  # its kernels end the program where the beam is larger


class CudaBeamSearch:
    """Decodes with a beam on a GPU: call it with log-probabilities as `greedy`.

    Arguments:
        tokenizer: the model's.
        config: sizes, no larger than `fits` allows, and the blank penalty; nothing else of it is used.
        device: the GPU.
        decoder: what decodes log-probabilities (batch, frame, token) and lengths (batch,) int32 on a GPU into lists
            of hypotheses with `tokens` and `score`, best first; torchaudio's where none is given.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig,
        device: str | torch.device = "cuda",
        decoder: Callable[[Tensor, Tensor], Sequence[Sequence[Any]]] | None = None,
    ):
        self.tokenizer, self.config, self.device = tokenizer, config, torch.device(device)
        self.decoder = decoder
        self._decoders: dict[tuple[int, int], Callable] = {}  # by device and stream

    @staticmethod
    def fits(tokenizer: Tokenizer, config: BeamConfig) -> bool:
        """Return whether the kernels can search as far; they keep no more hypotheses than there are tokens."""
        return max(config.beam_size, config.nbest) <= LARGEST_BEAM and config.nbest <= tokenizer.vocab_size

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode utterances: log_probs (frame, token) float32 of each."""
        blanks = [utterance[:, BLANK] for utterance in log_probs]
        hypotheses = [Hypothesis([], [], [], float(blank.sum())) for blank in blanks]
        # The decoder returns anything for an utterance all of whose frames it skips.
        spoken = [i for i, blank in enumerate(blanks) if (blank < math.log(SURE_BLANK)).any()]
        if not spoken:
            return hypotheses
        lengths = torch.tensor([len(log_probs[i]) for i in spoken], dtype=torch.int32, device=self.device)
        padded = pad_sequence([torch.from_numpy(log_probs[i]) for i in spoken], batch_first=True)
        padded[..., BLANK] -= self.config.blank_penalty
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            decode = self.decoder or self._torchaudio_decoder()
            beams = decode(padded.to(self.device).contiguous(), lengths)
        for i, results in zip(spoken, beams, strict=True):
            hypotheses[i] = self._best(results, log_probs[i], hypotheses[i])
        return hypotheses

    def _torchaudio_decoder(self) -> Callable:
        """Return the decoder of the current device and stream: torchaudio's keeps to those that it was made on."""
        here = torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
        if here not in self._decoders:
            from torchaudio.models.decoder import cuda_ctc_decoder

            # All of the beam comes back, for several of it may spell the same text.
            beam = max(self.config.beam_size, self.config.nbest)
            kept = min(beam, self.tokenizer.vocab_size)
            # The decoder sees the penalized blank, and skips the frames that were sure before.
            sure = SURE_BLANK * math.exp(-self.config.blank_penalty)
            self._decoders[here] = cuda_ctc_decoder(self.tokenizer.tokens, kept, beam, sure)
        return self._decoders[here]

    def _best(self, results: Sequence[Any], log_probs: np.ndarray, silence: Hypothesis) -> Hypothesis:
        """Return the best result, its tokens where they align, with the next as its alternatives."""
        best: dict[str, Hypothesis] = {}
        for result in results:
            tokens = list(result.tokens)
            spelled = " ".join(self.tokenizer.decode(tokens).split())
            if spelled not in best and len(best) < self.config.nbest:
                placed = align(log_probs, tokens) if tokens else silence
                best[spelled] = replace(placed, score=float(result.score))
        first, *alternatives = best.values()
        return replace(first, alternatives=tuple(alternatives))
