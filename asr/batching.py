"""How much audio is computed together: what is fast and fits the free memory, and half of it where it did not fit."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch

from asr.bundle import Bundle
from asr.errors import AsrError
from asr.model import ConvLayer

# Seconds of padded audio, more of which is no faster: what fills two cores, and what fills a GPU.
MOST_SECONDS = {"cpu": 240.0, "cuda": 1920.0}
SHARE = 0.4  # of the free memory, for the audio that is read ahead, kernels' own buffers and other programs
BYTES = 4  # of a float32
LOGIT_COPIES = 5  # as float32, padded anew, normalized, and a copy of it for the search
CGROUPS = Path("/sys/fs/cgroup")

Item = TypeVar("Item")
Result = TypeVar("Result")


def automatic_batch_seconds(bundle: Bundle, device: torch.device) -> float:
    """Give the seconds of padded audio that a batch may hold in the memory that is free now."""
    fitting = SHARE * free_memory(device) / activation_bytes(bundle)
    return min(MOST_SECONDS.get(device.type, MOST_SECONDS["cpu"]), fitting)


def activation_bytes(bundle: Bundle) -> float:
    """Work out how many bytes recognizing a second of audio takes at once, where it takes most.

    Counted are for a convolution its input, its output and that with the padding set to zero, for a recurrent layer
    its input, that normalized, all gates and its output, and the logits; beside each of them the samples. Spectra are
    made of a little audio at a time.
    """
    model, features = bundle.model, bundle.log_mel.config
    frames, width = features.sample_rate / features.hop_length, features.n_mels
    values = []
    for layer in cast(Iterable[ConvLayer], model.front_end.layers):
        before = frames * width
        frames, width = frames / layer.stride[0], layer.conv.out_channels * layer.mels
        values.append(before + 2 * frames * width)
    directions = 2 if model.config.bidirectional else 1
    output = directions * (model.config.proj_size or model.config.hidden_size)
    for _ in model.recurrent:
        values.append(frames * (2 * width + directions * 4 * model.config.hidden_size + output))
        width = output
    values.append(frames * (width + LOGIT_COPIES * bundle.tokenizer.vocab_size))
    return BYTES * (features.sample_rate + max(values))


def free_memory(device: str | torch.device = "cpu") -> int:
    """Give the free bytes of a GPU, or of this machine within the limits that this process runs under."""
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for later
        return torch.cuda.mem_get_info(device)[0] + kept
    lines = Path("/proc/meminfo")
    if not lines.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":") for line in lines.read_text().splitlines())
    available = 1024 * int(fields["MemAvailable"].split()[0])  # with the file cache, which is given back
    groups = Path("/proc/self/cgroup")
    return min([available, *(cgroup_room(groups.read_text()) if groups.exists() else [])])


def cgroup_room(groups: str, root: Path = CGROUPS) -> Iterator[int]:
    """Give the bytes left under each memory limit of a process's control groups, as containers and batch systems set.

    Arguments: groups, the content of /proc/self/cgroup; root, where the groups are mounted.
    """
    kinds = {  # of a line: folder, file of the limit, of what is used, field of the file cache that is given back
        "": (root, "memory.max", "memory.current", "inactive_file"),
        "memory": (
            root / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    for line in groups.splitlines():
        _, controller, path = line.split(":", 2)
        if controller not in kinds:
            continue
        folder, limit, used, cache = kinds[controller]
        inside = Path(path.lstrip("/"))
        for group in (folder / inside, *(folder / parent for parent in inside.parents)):
            try:
                most = (group / limit).read_text().strip()
                if most == "max":
                    continue
                statistics = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                given_back = int(statistics.get(cache, 0))
                yield max(0, int(most) - int((group / used).read_text()) + given_back)
            except OSError:  # a container sees its own groups only, under the root
                continue


def in_halves(compute: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> list[Result]:
    """Compute a batch; where memory runs out, its halves, and so on. Gives one result for each part, in order.

    Raises AsrError where a single item is too much.
    """
    try:
        return [compute(items)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(items) == 1:
            raise AsrError(
                f"the memory does not hold what recognizing a single stretch of audio takes ({_reason(error)}); end "
                "other programs, use another --device or a smaller model"
            ) from error
    if torch.cuda.is_available():  # here, where the error no longer keeps what was computed so far
        torch.cuda.empty_cache()
    middle = len(items) // 2
    return in_halves(compute, items[:middle]) + in_halves(compute, items[middle:])


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was too small, on a GPU or on the CPU."""
    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in said
    )
