"""The program that decodes uploads: a process of its own, with limits on its memory, and killed when it takes too long.

python -m asr.serve.decode_child BYTES           answers lines of JSON, a file each
python -m asr.serve.decode_child BYTES --stream  an Ogg stream on standard input becomes samples on standard output
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from asr.errors import AsrError, AudioError

# Decoded at a time: what is decoded before a limit is noticed, and what waits in a stream.
BLOCK_SECONDS = 10.0
STREAM_SECONDS = 0.02
FILE_NAME = "the uploaded file"


def main(arguments: list[str]) -> None:
    """Set the limits and decode until standard input ends."""
    limit(int(arguments[0]))
    if "--stream" in arguments:
        _decode_stream()
        return
    import soundfile  # noqa: F401 - so that the first file does not wait for it
    import soxr  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def limit(memory: int) -> None:
    """Bound this process's memory in bytes, and let it write no core."""
    with suppress(ImportError, ValueError, OSError):  # on systems that lack it
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _limit_time(seconds: float) -> None:
    """Let the kernel end this process after so many more seconds of computing, even where its parent is gone."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    _limit_time(job["seconds"])
    try:
        return {"samples": decode(job["path"], job["output"], job["rate"], job["max_seconds"])}
    except AsrError as error:
        return {"error": str(error).replace(job["path"], FILE_NAME)}
    except MemoryError:
        return {"error": f"{FILE_NAME} takes more memory to decode than it may; expected ordinary audio"}
    except Exception as error:  # whatever a decoder makes of a file, the next one is decoded
        return {"error": f"{FILE_NAME} cannot be decoded: {type(error).__name__}"}


def decode(path: str, output: str, sample_rate: int, max_seconds: float) -> int:
    """Write a file's samples, mono float32, into `output`, and return how many they are. Raises AudioError."""
    from asr.audio import stream_audio

    count = 0
    with Path(output).open("wb") as file:
        for block in stream_audio(path, sample_rate, BLOCK_SECONDS):
            count += len(block)
            if count > max_seconds * sample_rate:
                raise AudioError(
                    f"{FILE_NAME} is longer than {max_seconds:.0f} s, the most that is taken; divide it"
                )
            file.write(block.tobytes())
    return count


def _decode_stream() -> None:
    """Write the samples of an Ogg stream as they come: mono float32 at 48 kHz, behind a line with the rate."""
    import soundfile

    output = sys.stdout.buffer
    try:
        with soundfile.SoundFile(0, closefd=False) as sound:
            output.write(f"{sound.samplerate}\n".encode())
            size = round(STREAM_SECONDS * sound.samplerate)
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                output.write(np.ascontiguousarray(block.mean(axis=1)).tobytes())
                output.flush()
    except soundfile.LibsndfileError:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
