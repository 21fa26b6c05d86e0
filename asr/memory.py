"""How much audio is computed together: what is fast and fits the free memory, and half of it where it did not fit."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from asr.bundle import Bundle
from asr.errors import AsrError

# Share of the free memory that a batch may take; the rest is for audio that is read ahead, for the buffers of kernels
# and for other programs.
MEMORY_SHARE = 0.4
BYTES = 4  # of a float32
# The log-probabilities are held as logits, normalized, copied for the decoder, and padded for it.
LOG_PROB_COPIES = 5
CGROUPS = Path("/sys/fs/cgroup")

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchBudget:
    """Samples that a batch may hold, padding included; fewer once memory ran out.

    >>> budget = BatchBudget(seconds=4.0, sample_rate=16000)
    >>> budget.holds(4, 16000), budget.holds(5, 16000)
    (True, False)
    >>> budget.shrink(parts=2)
    >>> budget.holds(4, 16000)
    False
    """

    def __init__(self, seconds: float, sample_rate: int):
        self.samples = seconds * sample_rate

    def holds(self, count: int, longest: int) -> bool:
        """Return whether `count` pieces of audio padded to `longest` samples are within the budget."""
        return count * longest <= self.samples

    def shrink(self, parts: int) -> None:
        """Divide the budget by the number of parts that a batch had to be computed in."""
        self.samples /= parts


def batch_seconds_within(free_bytes: float, bundle: Bundle, most: float) -> float:
    """Return the seconds of padded audio that a batch may hold in so many free bytes, at most `most`."""
    return min(most, MEMORY_SHARE * free_bytes / activation_bytes(bundle))


def activation_bytes(bundle: Bundle) -> float:
    """Return how many bytes recognizing a second of audio takes at once, where it takes most.

    Counted are for a convolution its input, its output and that with the padding set to zero, for a recurrent layer
    its input, that normalized, all gates and its output, and the log-probabilities; beside each of them the samples.
    Spectra are made of a little audio at a time.
    """
    features, model, front_end = bundle.features, bundle.model, bundle.model.front_end
    frames, mels, channels = features.sample_rate / features.hop_length, features.n_mels, 1
    values = []
    layers = zip(front_end.channels, front_end.kernel_sizes, front_end.strides, strict=True)
    for channels_out, (_, kernel), (time_stride, mel_stride) in layers:
        before = frames * channels * mels
        frames, channels = frames / time_stride, channels_out
        mels = (mels + 2 * (kernel // 2) - kernel) // mel_stride + 1
        values.append(before + 2 * frames * channels * mels)
    width, directions = channels * mels, 2 if model.bidirectional else 1
    output = directions * (model.proj_size or model.hidden_size)
    for _ in range(model.layers):
        values.append(frames * (2 * width + directions * 4 * model.hidden_size + output))
        width = output
    values.append(frames * (width + LOG_PROB_COPIES * bundle.tokenizer.vocab_size))
    return BYTES * (features.sample_rate + max(values))


def free_memory() -> int:
    """Return the free bytes of this machine within the limits that this process runs under."""
    lines = Path("/proc/meminfo")
    if not lines.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":") for line in lines.read_text().splitlines())
    # With the file cache, which is given back.
    available = 1024 * int(fields["MemAvailable"].split()[0])
    groups = Path("/proc/self/cgroup")
    return min([available, *(cgroup_room(groups.read_text()) if groups.exists() else [])])


def cgroup_room(groups: str, root: Path = CGROUPS) -> Iterator[int]:
    """Yield the bytes left under each memory limit of a process's control groups, as containers and batch systems set.

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
    """Compute a batch; where memory runs out, its halves, and so on. Returns one result for each part, in order.

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
    # Here, where the error no longer keeps what was computed so far.
    middle = len(items) // 2
    return in_halves(compute, items[:middle]) + in_halves(compute, items[middle:])


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory was too small, on a GPU or on the CPU."""
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)
