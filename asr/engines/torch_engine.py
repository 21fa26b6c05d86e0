"""The model in PyTorch with the fused recurrent layers, on CPU and GPU: the only way from recognition to torch."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.bundle import Bundle
from asr.ctc import log_probs_of
from asr.decoding import Decoder, ParallelBeamSearch
from asr.engines.weights import no_frames
from asr.errors import AsrError
from asr.memory import batch_seconds_within, free_memory
from asr.recurrent import pack_for_inference
from asr.torch_bundle import TorchBundle

# Seconds of padded audio, more of which is no faster: what fills two cores, and what fills a GPU.
MOST_SECONDS = {"cpu": 240.0, "cuda": 1920.0}


class TorchEngine:
    """See `asr.engines.Engine`.

    Arguments: bundle; device, "cpu", "cuda", ... or "auto"; compute_type, on a CPU of the recurrent layers' weights, on
    a GPU of the whole model; threads of the CPU, for this whole process, None for torch's choice. Raises BundleError
    for weights that do not fit, AsrError for what the device cannot do.

    >>> from asr.bundle import BUNDLES
    >>> engine = TorchEngine(Bundle.load(BUNDLES / "an4"), "cpu")
    >>> [part.shape for part in engine.log_probs([np.zeros(16000, np.float32), np.zeros(0, np.float32)])]
    [(26, 130), (0, 130)]
    """

    def __init__(
        self, bundle: Bundle, device: str = "auto", compute_type: str = "float32", threads: int | None = None
    ):
        self.device, self.compute_type = chosen_device(device), compute_type
        if threads:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.sample_rate, self.seconds_per_frame = bundle.sample_rate, bundle.seconds_per_frame
        self.vocab_size = bundle.tokenizer.vocab_size
        modules = TorchBundle.of(bundle, self.device)
        self.model, self.log_mel = modules.model, modules.log_mel
        self._device = torch.device(self.device)
        if self._device.type == "cpu" and compute_type != "float32":
            pack_for_inference(self.model, compute_type)
        elif compute_type == "int8":
            raise AsrError("compute type int8 is for CPUs; a GPU takes float32 or bfloat16")

    def log_probs(self, samples: Sequence[np.ndarray], phones: bool = False) -> list[np.ndarray]:
        """Return the log-probabilities (frame, token) float32 of each of samples (time,), computed together.

        With `phones`, (frame, token + 1 + phone).
        """
        try:
            return self._log_probs(samples, phones)
        except torch.OutOfMemoryError as error:
            failure = error.with_traceback(None)  # whose frames would hold what was computed so far
        torch.cuda.empty_cache()
        raise failure

    @torch.inference_mode()
    def _log_probs(self, samples: Sequence[np.ndarray], phones: bool) -> list[np.ndarray]:
        if not any(map(len, samples)):
            return no_frames(self.bundle, len(samples), phones)
        lengths = torch.tensor([len(utterance) for utterance in samples], device=self._device)
        tensors = [torch.from_numpy(np.ascontiguousarray(utterance)) for utterance in samples]
        padded = pad_sequence(tensors, batch_first=True).to(self._device)
        features, frames = self.log_mel(padded, lengths, leveled=True)
        in_bfloat16 = self._device.type != "cpu" and self.compute_type == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, in_bfloat16):
            hidden, frames = self.model.encode(features, frames)
            outputs = [score(hidden) for score in (self.model.score, self.model.score_phones)[: 1 + phones]]
        parts = [log_probs_of(logits, frames) for logits in outputs]
        return parts[0] if not phones else [np.concatenate(both, 1) for both in zip(*parts, strict=True)]

    def batch_seconds(self) -> float:
        """Return the seconds of padded audio that are fast to compute together and fit the free memory."""
        free = free_gpu_memory(self._device) if self._device.type == "cuda" else free_memory()
        return batch_seconds_within(
            free, self.bundle, MOST_SECONDS.get(self._device.type, MOST_SECONDS["cpu"])
        )

    def stages(self) -> "TorchStages":
        """Return the model's parts, for a stream."""
        return TorchStages(self)

    def accelerated(self, decoder: Decoder) -> Decoder:
        """Return a beam search on the GPU, if torchaudio is there and nothing but the model has a say in the search."""
        from asr.engines.cuda_beam import CudaBeamSearch

        if self._device.type != "cuda" or not isinstance(decoder, ParallelBeamSearch):
            return decoder
        if not find_spec("torchaudio"):
            return decoder
        search = decoder.search
        if not search.is_free or not CudaBeamSearch.fits(search.tokenizer, search.config):
            return decoder
        return CudaBeamSearch(search.tokenizer, search.config, self._device)


class TorchStages:
    """See `asr.engines.Stages`."""

    def __init__(self, engine: TorchEngine):
        self.model, self.device, config = engine.model, engine._device, engine.log_mel.config
        # What needs the utterance's own statistics is the stream's part.
        self.log_mel = copy(engine.log_mel)
        normalize = "none" if config.normalize == "utterance" else config.normalize
        self.log_mel.config = replace(config, normalize=normalize, samples="recorded")

    @torch.inference_mode()
    def features(self, samples: np.ndarray) -> np.ndarray:
        """Return features (frame, mel) of samples (time,), normalized with the training data's statistics or not."""
        return self.log_mel(self._batch(samples))[0][0].cpu().numpy()

    @torch.inference_mode()
    def convolve(self, features: np.ndarray) -> np.ndarray:
        """Return the output (frame', feature) of the convolutions for features (frame, mel)."""
        lengths = torch.tensor([len(features)], device=self.device)
        return self.model.front_end(self._batch(features), lengths)[0][0].cpu().numpy()

    @torch.inference_mode()
    def recur(self, hidden: np.ndarray, states: list | None, chunk: int) -> tuple[np.ndarray, list]:
        """Return log-probabilities (chunk, token) of the first frames of hidden (frame, feature), and the states.

        Each layer reads chunk and look-ahead together, and the chunk a second time for the state to carry on.
        """
        x, carried = self._batch(hidden), []
        lengths = torch.tensor([len(hidden)], device=self.device)
        before: Sequence[Any] = states or [None] * len(self.model.recurrent)
        for norm, layer, state in zip(self.model.norms, self.model.recurrent, before, strict=False):
            x = norm(x)
            y, final = layer(x, lengths, state)
            if len(hidden) > chunk:
                _, final = layer(x[:, :chunk], lengths.clamp(max=chunk), state)
            carried.append(_forward_only(final))
            x = y
        logits = self.model.score(x[:, :chunk])
        return log_probs_of(logits, torch.tensor([chunk]))[0], carried

    def _batch(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).unsqueeze(0)


def chosen_device(name: str) -> str:
    """Return the device of a name; "auto" is the GPU where there is one. Raises AsrError for what is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise AsrError(f"the device {name} was asked for but torch finds no GPU; take cpu")
    try:
        torch.empty(0, device=name)
    except RuntimeError as error:
        raise AsrError(f"there is no device {name!r} ({str(error).splitlines()[0]})") from error
    return name


def free_gpu_memory(device: str | torch.device) -> int:
    """Return the free bytes of a GPU, those that torch keeps for later among them."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _forward_only(state: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Keep the forward direction's state (direction, batch, size); the reverse direction's begins at zero."""
    if isinstance(state, tuple):
        return tuple(_forward_only(part) for part in state)  # type: ignore[return-value]
    return torch.cat([state[:1], torch.zeros_like(state[1:])])
