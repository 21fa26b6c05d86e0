"""`asr transcribe --stream -` and `--microphone`: words printed while they are spoken."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import TYPE_CHECKING, cast

import numpy as np

from asr.errors import AsrError, AudioError
from asr.version import install_hint

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.transcript import Word

STDIN = "-"
FULL_SCALE = 32768.0  # of signed 16-bit samples
MOST_BYTES = 1 << 16  # read at a time, where as many are there
MICROPHONE_SECONDS = 0.1  # read at a time
EXAMPLE = "ffmpeg -i SOURCE -f s16le -ar 16000 -ac 1 - | asr transcribe --stream -"
# How files of audio begin, which would be heard as a click or as noise.
FILE_HEADS = {
    b"RIFF": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3\x03": "mp3",
    b"ID3\x04": "mp3",
    b"NIST": "sphere",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of live recognition."""
    group = parser.add_argument_group("live", "words are printed as they settle; Ctrl-C ends")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--stream",
        action="store_true",
        help="read raw samples from standard input, named - : signed 16-bit little-endian, mono, at the model's rate",
    )
    source.add_argument("--microphone", action="store_true", help="listen to the default input device")
    group.add_argument(
        "--stream-rate", type=int, metavar="HZ", help="rate of the samples (default: the model's); resampled"
    )
    group.add_argument("--chunk", type=float, metavar="SECONDS", help="decoded at a time (default: 0.5)")
    group.add_argument(
        "--look-ahead",
        type=float,
        metavar="SECONDS",
        help="heard beyond a chunk before it is decoded, by a model that reads in both directions (default: 1)",
    )


def is_wanted(arguments: argparse.Namespace) -> bool:
    """Whether words are to be printed as they are spoken. Raises AsrError for options that contradict it."""
    if not (arguments.stream or arguments.microphone):
        for name in ("stream_rate", "chunk", "look_ahead"):
            if getattr(arguments, name) is not None:
                raise AsrError(f"--{name.replace('_', '-')} was given without --stream or --microphone")
        return False
    if arguments.stream and arguments.inputs != [STDIN]:
        raise AsrError(f"--stream reads standard input: name - and nothing else, as in `{EXAMPLE}`")
    if arguments.microphone and arguments.inputs:
        raise AsrError(f"--microphone was given with the input {arguments.inputs[0]}; name one or the other")
    if arguments.microphone and arguments.stream_rate is not None:
        raise AsrError("--stream-rate was given with --microphone, which is read at the model's rate")
    if arguments.stream_rate is not None and arguments.stream_rate < 1:
        raise AsrError(f"--stream-rate is {arguments.stream_rate}; expected 1 Hz or more")
    if arguments.output_dir is not None or arguments.beside or arguments.format:
        raise AsrError("live words are printed, not written into files: leave -o, --beside and -f out")
    if arguments.stream and sys.stdin.isatty():
        raise AudioError(f"standard input is a terminal; expected samples from a pipe, as in `{EXAMPLE}`")
    return True


def run(arguments: argparse.Namespace, recognizer: "Recognizer") -> int:
    """Print words as they settle until the samples end, or Ctrl-C."""
    given = {name: getattr(arguments, name) for name in ("chunk", "look_ahead")}
    stream = recognizer.stream(**{name: value for name, value in given.items() if value is not None})
    rate = recognizer.sample_rate
    blocks = (
        _microphone(rate) if arguments.microphone else _standard_input(arguments.stream_rate or rate, rate)
    )
    printed = 0
    try:
        for block in blocks:
            with _interrupts_held():
                stream.feed(block)
                printed = _print(stream.words, printed)
    except KeyboardInterrupt:  # what was heard until then is said
        pass
    finally:
        stream.finish()
        _print(stream.words, printed)
        if stream.words:
            print(flush=True)
    return 0


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C take effect behind the block of code: half a step would leave a stream that cannot be finished."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _print(words: "Sequence[Word]", printed: int) -> int:
    """Print the words behind those printed already; gives how many are printed now."""
    for i, word in enumerate(words[printed:], printed):
        print(f" {word.word}" if i else word.word, end="", flush=True)
    return len(words)


def _standard_input(rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Read samples of standard input as they come, (time,) float32 at the wanted rate. Raises AudioError."""
    stdin = cast(BufferedReader, sys.stdin.buffer)
    data = rest = stdin.read1(MOST_BYTES)
    if not data:
        raise AudioError("standard input is empty; expected signed 16-bit samples")
    if (kind := FILE_HEADS.get(data[:4])) is not None:
        raise AudioError(
            f"standard input begins as a {kind} file does; --stream takes raw samples: leave it out for a file, or "
            f"convert it, as in `{EXAMPLE}`"
        )
    resampler = None
    if rate != wanted:
        import soxr

        resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32")
    while data:
        whole = len(rest) - len(rest) % 2
        samples = np.frombuffer(rest[:whole], "<i2").astype(np.float32) / FULL_SCALE
        yield samples if resampler is None else resampler.resample_chunk(samples)
        data = stdin.read1(MOST_BYTES)
        rest = rest[whole:] + data
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if rest:
        raise AudioError(
            "standard input ended in the middle of a 16-bit sample; is it what --stream expects?"
        )


def _microphone(rate: int) -> Iterator[np.ndarray]:
    """Read the default input device, (time,) float32 at this rate, for ever. Raises AudioError."""
    try:
        import sounddevice  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise AudioError(
            "the microphone needs the package sounddevice; " + install_hint("microphone")
        ) from error
    except OSError as error:  # the package is there, the library that it binds is not
        raise AudioError(
            f"the microphone needs the PortAudio library ({error}); on Debian: apt-get install libportaudio2"
        ) from error
    try:
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32") as microphone:
            print("listening; Ctrl-C ends", file=sys.stderr)
            while True:
                samples, overflowed = microphone.read(round(MICROPHONE_SECONDS * rate))
                if overflowed:
                    print("[too slow for the microphone: some of it was lost]", file=sys.stderr)
                yield samples[:, 0]
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone cannot be read at {rate} Hz: {error}") from error
