"""How many seconds of audio a batch may hold in this machine's memory."""

import copy
import logging
from dataclasses import replace

import torch
from lightning_fabric import Fabric

from asr.ctc import ctc_loss
from asr.engines.torch_engine import free_gpu_memory
from asr.errors import ConfigError
from asr.features import frame_count
from asr.memory import free_memory
from asr.torch_bundle import TorchBundle
from asr.training.config import TrainConfig
from asr.training.distributed import least

# Share of the free memory for what a batch keeps; gradients, temporaries and the loader take theirs too.
MEMORY_SHARE = 0.4
# Seconds of audio in a batch, and batches in an epoch, beyond which steps become few rather than fast.
MOST_SECONDS, FEWEST_BATCHES = 960.0, 20
PROBE_SECONDS = 8.0
LETTERS_A_SECOND = 15

log = logging.getLogger(__name__)


def with_batch_seconds(
    config: TrainConfig,
    bundle: TorchBundle,
    seconds_per_epoch: float,
    resumed: float | None = None,
    fabric: Fabric | None = None,
) -> TrainConfig:
    """Replace data.batch_seconds "auto" by a number; a resumed run keeps the one that it began with.

    Several processes take what the one with the least memory can, as all have to plan the same batches. Raises
    ConfigError where the memory does not hold the longest utterance.
    """
    if config.data.batch_seconds != "auto":
        return config
    seconds = resumed if resumed is not None else _fitting_seconds(config, bundle, seconds_per_epoch, fabric)
    return replace(config, data=replace(config.data, batch_seconds=seconds))


def _fitting_seconds(
    config: TrainConfig, bundle: TorchBundle, seconds_per_epoch: float, fabric: Fabric | None
) -> float:
    longest = config.data.max_seconds
    on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
    free = free_gpu_memory("cuda") if on_gpu else free_memory()
    per_second = bytes_per_second(bundle) * config.loss.views
    seconds = MEMORY_SHARE * free / per_second
    if seconds < longest:
        raise ConfigError(
            f"{free / 1e9:.1f} GB of free memory hold batches of {seconds:.0f} s, data.max_seconds is "
            f"{longest:.0f} s: lower it, or make the model smaller"
        )
    useful = max(longest, min(seconds_per_epoch / FEWEST_BATCHES, MOST_SECONDS))
    seconds = float(round(min(seconds, useful)))
    if fabric is not None:
        seconds = least(fabric, seconds)
    if fabric is None or fabric.is_global_zero:
        kept = seconds * per_second / 1e9
        log.info(
            "batches: %.0f s of audio, which take %.1f GB of %.1f GB that are free", seconds, kept, free / 1e9
        )
    return seconds


def bytes_per_second(bundle: TorchBundle) -> float:
    """Measure what the backward pass needs kept of a second of audio, by a small forward pass.

    Every layer keeps as much a frame, so that it grows in proportion to a batch's seconds.
    """
    model, features = copy.deepcopy(bundle.model), bundle.log_mel.config  # batch norm remembers what it sees
    frames = frame_count(round(PROBE_SECONDS * features.sample_rate), features.hop_length)
    lengths = torch.tensor([frames, frames])
    letters = min(int(LETTERS_A_SECOND * PROBE_SECONDS), int(model.output_lengths(lengths)[0]) // 2)
    tokens = torch.ones(2, letters, dtype=torch.int64)
    tokens[:, ::2] = min(2, bundle.tokenizer.vocab_size - 1)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()  # views of one storage are kept once
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    state = torch.get_rng_state()
    device = next(model.parameters()).device
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits, out_lengths = model(
            torch.randn(2, frames, features.n_mels, device=device), lengths.to(device)
        )
        ctc_loss(logits, out_lengths, tokens.to(device), torch.full((2,), letters, device=device))
    torch.set_rng_state(state)  # a run with "auto" is the run with the number it finds
    return sum(size for pointer, size in kept.items() if pointer not in weights) / (2 * PROBE_SECONDS)
