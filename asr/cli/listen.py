"""Print words while they are spoken: from the microphone, or from a pipe of raw samples.

  asr listen                                                        the default input device, until Ctrl-C
  ffmpeg -i SOURCE -f s16le -ar 16000 -ac 1 - | asr listen -        signed 16-bit little-endian samples, mono
  arecord -f S16_LE -r 44100 | asr listen - --rate 44100            at another rate than the model's: resampled

A word is printed once it is settled, which takes up to a chunk and the look-ahead. Files are for `asr transcribe`.
"""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import TYPE_CHECKING, cast

import numpy as np

from asr.cli import options
from asr.cli.console import note
from asr.errors import AsrError, AudioError
from asr.version import install_hint

if TYPE_CHECKING:
    from asr import Word

STDIN = "-"
# Of signed 16-bit samples.
FULL_SCALE = 32768.0
# Read at a time: from a pipe at most, from the microphone always.
PIPE_BYTES = 1 << 16
MICROPHONE_SECONDS = 0.1
EXAMPLE = "ffmpeg -i SOURCE -f s16le -ar 16000 -ac 1 - | asr listen -"
# How audio files begin, which would be played as a click or as noise.
FILE_HEADS = {
    b"RIFF": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3\x03": "mp3",
    b"ID3\x04": "mp3",
    b"NIST": "sphere",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "input",
        nargs="?",
        metavar="-",
        help="standard input: raw signed 16-bit little-endian samples, mono (default: the microphone)",
    )
    options.add_model(parser)
    parser.add_argument(
        "--rate",
        type=options.count(1),
        metavar="HZ",
        help="sample rate of standard input, resampled if it is not the model's (default: the model's)",
    )
    parser.add_argument(
        "--chunk", type=float, metavar="SECONDS", help="seconds decoded at a time (default: 0.5)"
    )
    parser.add_argument(
        "--look-ahead",
        type=float,
        metavar="SECONDS",
        help="seconds read beyond a chunk before it is decoded, by a model that reads in both directions (default: 1)",
    )
    options.add_device(parser)
    options.add_precision(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print words as they settle until the samples end, or Ctrl-C."""
    _check(arguments)
    recognizer = options.load_recognizer(arguments)
    settings = {name: getattr(arguments, name) for name in ("chunk", "look_ahead")}
    stream = recognizer.stream(**{name: value for name, value in settings.items() if value is not None})
    rate = recognizer.sample_rate
    blocks = _standard_input(arguments.rate or rate, rate) if arguments.input else _microphone(rate)
    printed = 0
    try:
        for block in blocks:
            with _interrupts_held():
                stream.feed(block)
                printed = _print(stream.words, printed)
    except KeyboardInterrupt:  # the words until then are printed
        pass
    finally:
        stream.finish()
        _print(stream.words, printed)
        if stream.words:
            print(flush=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise AsrError for an input that is not a stream."""
    if arguments.input is None:
        if arguments.rate is not None:
            raise AsrError("--rate was given without -; the microphone is read at the model's rate")
    elif arguments.input != STDIN:
        raise AsrError(
            f"{arguments.input!r} was given; expected - for standard input, or nothing for the microphone; "
            "`asr transcribe` reads files"
        )
    elif sys.stdin.isatty():
        raise AudioError(f"standard input is a terminal; expected samples from a pipe, as in `{EXAMPLE}`")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block of code: half a step would leave a stream that cannot be finished."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _print(words: "Sequence[Word]", printed: int) -> int:
    """Print the words behind those printed already; return how many are printed now."""
    for i, word in enumerate(words[printed:], printed):
        print(f" {word.word}" if i else word.word, end="", flush=True)
    return len(words)


def _standard_input(rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Read samples of standard input as they come, (time,) float32 at the target rate. Raises AudioError."""
    stdin = cast(BufferedReader, sys.stdin.buffer)
    data = rest = stdin.read1(PIPE_BYTES)
    if not data:
        raise AudioError("standard input is empty; expected signed 16-bit samples")
    if (kind := FILE_HEADS.get(data[:4])) is not None:
        raise AudioError(
            f"standard input begins as a {kind} file; expected raw samples; use `asr transcribe -` for a file, "
            f"or convert it, as in `{EXAMPLE}`"
        )
    resampler = None
    if rate != target_rate:
        import soxr

        resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32")
    while data:
        whole = len(rest) - len(rest) % 2
        samples = np.frombuffer(rest[:whole], "<i2").astype(np.float32) / FULL_SCALE
        yield samples if resampler is None else resampler.resample_chunk(samples)
        data = stdin.read1(PIPE_BYTES)
        rest = rest[whole:] + data
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if rest:
        raise AudioError("standard input ended in the middle of a sample; expected signed 16-bit samples")


def _microphone(rate: int) -> Iterator[np.ndarray]:
    """Read the default input device, (time,) float32 at this rate, without end. Raises AudioError."""
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
            note("listening; Ctrl-C ends")
            while True:
                samples, overflowed = microphone.read(round(MICROPHONE_SECONDS * rate))
                if overflowed:
                    note("[too slow for the microphone: some audio was lost]")
                yield samples[:, 0]
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone cannot be read at {rate} Hz: {error}") from error
