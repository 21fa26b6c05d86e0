"""How many seconds of audio a batch may hold in this machine's memory."""

import copy
from dataclasses import replace

import torch
from lightning.fabric import Fabric

from asr.ctc import ctc_loss
from asr.engines.torch_engine import free_gpu_memory
from asr.errors import ConfigError
from asr.features import frame_count
from asr.memory import free_memory
from asr.torch_bundle import TorchBundle
from asr.training.config import TrainConfig

SHARE = (
    0.4  # of the free memory for what a batch keeps; gradients, temporaries and the loader take theirs too
)
MOST_SECONDS = 960.0  # of audio in a batch: more makes steps few rather than fast ...
FEWEST_BATCHES = 20  # ... as fewer in an epoch do
PROBE_SECONDS = 8.0
LETTERS_A_SECOND = 15


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
    if resumed is not None:
        seconds = resumed
    else:
        on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
        free = free_gpu_memory("cuda") if on_gpu else free_memory()
        per_second = bytes_per_second(bundle) * config.loss.views
        seconds = SHARE * free / per_second
        if seconds < config.data.max_seconds:
            raise ConfigError(
                f"{free / 1e9:.1f} GB of free memory hold batches of {seconds:.0f} s, data.max_seconds is "
                f"{config.data.max_seconds:.0f} s: lower it, or make the model smaller"
            )
        few = max(config.data.max_seconds, min(seconds_per_epoch / FEWEST_BATCHES, MOST_SECONDS))
        seconds = float(round(min(seconds, few)))
        if fabric is not None and fabric.world_size > 1:
            least = torch.tensor(seconds, device=fabric.device)
            torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
            seconds = float(least)
        if fabric is None or fabric.is_global_zero:
            kept = seconds * per_second / 1e9
            print(f"batches: {seconds:.0f} s of audio, {kept:.1f} GB of {free / 1e9:.1f} GB that are free")
    return replace(config, data=replace(config.data, batch_seconds=seconds))


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
