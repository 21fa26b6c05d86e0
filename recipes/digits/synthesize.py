"""Synthesize a corpus of connected spoken digits, offline, with espeak-ng: many voices, rates, pitches and
noises.

  python recipes/digits/synthesize.py --output-dir data/digits --hours 1
 Written are wav/SPLIT/*.wav (16 kHz) and cuts_{train,dev,test}.jsonl.gz with the words' times. The voices of
dev and test are not heard in training. The same --seed gives the same corpus, whatever the number of
processes.
"""

import argparse
import ctypes
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000
DIGITS = ("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_DIGITS = 7  # in an utterance
SILENCE = 0.01  # of the utterance's peak

# A voice is an accent with a variant, which is what changes the timbre. The splits share accents, not
# variants.
ACCENTS = (
    "en-US",
    "en-US-nyc",
    "en",
    "en-GB-x-rp",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
    "en-GB-scotland",
    "en-029",
)
# Not much like a person: whispers, robots, effects.
UNUSED_VARIANTS = (
    "whisper",
    "Robot",
    "robosoft",
    "Demonic",
    "Tweaky",
    "croak",
    "Mr serious",
    "Anxious",
    "Storm",
)

# Each chunk is spoken by a process of its own, because espeak's state goes on from utterance to utterance:
# the same chunks from fresh processes are the same samples.
CHUNKS = {"train": 6, "dev": 1, "test": 1}
SHARE = {"train": 0.86, "dev": 0.06, "test": 0.08}  # of the hours


@dataclass(frozen=True)
class Chunk:
    """A part of a split: where it goes, who speaks, for how long, and the seed of all its choices."""

    name: str
    folder: Path
    variants: tuple[str, ...]
    seconds: float
    seed: str


@dataclass(frozen=True)
class Spoken:
    """An utterance as written: its file, voice and text, and (word, start, duration) in seconds for each
    word."""

    id: str
    audio: Path
    text: str
    voice: str
    words: tuple[tuple[str, float, float], ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
# Constants of speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS, _CHARS_UTF8, _POSITION_CHARACTER = 2, 1, 1
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_END_OF_CLAUSE = 0, 1, 5
_RATE, _PITCH, _RANGE = 1, 3, 4
_LONGEST_DATA_PATH = 140  # bytes; espeak's buffer for it has 160


class Espeak:
    """espeak-ng as `espeakng-loader` brings it, through its C interface. `seed` is of its breath noise."""

    def __init__(self, seed: int):
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
        if len(os.fsencode(data)) > _LONGEST_DATA_PATH:
            link = Path(tempfile.mkdtemp()) / "espeak-ng-data"
            link.symlink_to(data)
            data = str(link)
        self.rate = self.library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), 0)
        if self.rate <= 0:
            raise OSError(f"espeak-ng does not start with its data in {data}")
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # which is the time of day otherwise
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, int]] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library holds only its address
        self.library.espeak_SetSynthCallback(self._callback)

    def say(
        self, text: str, voice: str, *, rate: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[tuple[float, float]]]:
        """Speak a text: (time,) float32 at 16 kHz, and the (start, end) of each word in seconds.

        Arguments: rate in words a minute; pitch and pitch_range from 0 to 99.
        """
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        self._events.clear()
        spoken = text.encode()
        self.library.espeak_Synth(spoken, len(spoken) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        samples = np.concatenate(self._chunks).astype(np.float32) / 2**15
        times = []
        for (kind, start), (next_kind, end) in pairwise(
            [*self._events, (_EVENT_END_OF_CLAUSE, len(samples))]
        ):
            if kind == _EVENT_WORD:
                if next_kind == _EVENT_END_OF_CLAUSE:  # which comes after the clause's pause
                    loud = np.flatnonzero(np.abs(samples[start:end]) > SILENCE * np.abs(samples).max())
                    end = start + int(loud[-1]) if len(loud) else end
                times.append((start / self.rate, end / self.rate))
        return soxr.resample(samples, self.rate, SAMPLE_RATE), times

    def _receive(self, samples, count, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            if events[index].type in (_EVENT_WORD, _EVENT_END_OF_CLAUSE):
                self._events.append((events[index].type, events[index].sample))
            index += 1
        return 0


def noise(kind: str, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return (time,) noise of unit power whose spectrum falls by 0 (white), 3 (pink) or 6 dB an octave
    (brown)."""
    exponent = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
    spectrum = np.fft.rfft(generator.standard_normal(length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** exponent
    samples = np.fft.irfft(spectrum, length)
    return samples / np.sqrt(np.mean(samples**2))


def babble(others: Sequence[np.ndarray], length: int, generator: np.random.Generator) -> np.ndarray:
    """Return (time,) speech-like noise of several utterances at once, of unit power."""
    mixed = np.zeros(length)
    for other in others:
        mixed += np.roll(np.resize(other, length), generator.integers(length))
    return mixed / np.sqrt(np.mean(mixed**2))


def speak(chunk: Chunk) -> list[Spoken]:
    """Synthesize a chunk and write its files."""
    chance, generator = random.Random(chunk.seed), np.random.default_rng(list(chunk.seed.encode()))
    espeak = Espeak(chance.getrandbits(31))
    chunk.folder.mkdir(parents=True, exist_ok=True)
    for old in chunk.folder.glob(f"{chunk.name}-*.wav"):
        old.unlink()
    written: list[Spoken] = []
    recent: list[np.ndarray] = []  # the clean speech of the last few utterances, for babble
    seconds = 0.0
    while seconds < chunk.seconds:
        words = [chance.choice(DIGITS) for _ in range(chance.randint(1, MOST_DIGITS))]
        variant, accent = chance.choice(chunk.variants), chance.choice(ACCENTS)
        # As people read numbers out: some with a pause in the middle.
        pause_after = chance.randrange(len(words)) if chance.random() < 0.3 else None
        speech, times = espeak.say(
            " ".join(word + "," * (index == pause_after) for index, word in enumerate(words)),
            f"gmw/{accent}+{variant}",
            rate=chance.randint(120, 250),
            pitch=chance.randint(15, 85),
            pitch_range=chance.randint(20, 80),
        )
        if len(times) != len(words):
            raise ValueError(f"espeak-ng timed {len(times)} words of {' '.join(words)!r}")
        before, after = (int(chance.uniform(0.1, 0.4) * SAMPLE_RATE) for _ in range(2))
        samples = np.pad(speech, (before, after)).astype(np.float64)
        kind = chance.choice(("none", "white", "pink", "brown", "babble"))
        if kind != "none" and (kind != "babble" or recent):
            background = (
                babble(recent, len(samples), generator)
                if kind == "babble"
                else noise(kind, len(samples), generator)
            )
            decibels = chance.uniform(10, 30)  # of the speech over the noise
            samples += background * np.sqrt(np.mean(speech**2)) / 10 ** (decibels / 20)
        samples *= 10 ** (chance.uniform(-20, -1) / 20) / np.abs(samples).max()
        recent = [*recent[-3:], speech]
        name = f"{chunk.name}-{len(written):05d}"
        path = chunk.folder / f"{name}.wav"
        soundfile.write(path, samples.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")
        seconds += len(samples) / SAMPLE_RATE
        offset = before / SAMPLE_RATE
        timed = tuple(
            (word, offset + start, end - start) for word, (start, end) in zip(words, times, strict=True)
        )
        written.append(Spoken(name, path, " ".join(words), f"{accent}+{variant}", timed))
    return written


def split_variants(seed: int) -> dict[str, tuple[str, ...]]:
    """Share the variants of the wheel's voices out to the splits, variants of one family (iven, iven2)
    together."""
    import espeakng_loader

    families: dict[str, list[str]] = {}
    for path in sorted((Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()):
        if not any(unused in path.name for unused in UNUSED_VARIANTS):
            # f1 to f5 and m1 to m8 are different people
            numbered = len(path.name) == 2 and path.name[1].isdigit()
            family = path.name if numbered else path.name.rstrip("0123456789").lower()
            families.setdefault(family, []).append(path.name)
    order = list(families)
    random.Random(seed).shuffle(order)
    test, dev = len(order) // 6, len(order) // 8
    parts = {"test": order[:test], "dev": order[test : test + dev], "train": order[test + dev :]}
    return {split: tuple(sorted(chain(*(families[name] for name in parts[split])))) for split in CHUNKS}


def synthesize(
    output_dir: Path, hours: float, seed: int = 0, jobs: int | None = None
) -> dict[str, list[Spoken]]:
    """Write the audio of every split and give what was spoken."""
    chunks = list(_chunks(output_dir, hours, seed))
    processes = min(jobs or os.cpu_count() or 1, len(chunks))
    # spawn: a forked process would inherit the threads and the espeak of its parent
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        spoken = pool.map(speak, chunks, chunksize=1)
    splits: dict[str, list[Spoken]] = {}
    for chunk, utterances in zip(chunks, spoken, strict=True):
        splits.setdefault(chunk.folder.name, []).extend(utterances)
    return splits


def _chunks(output_dir: Path, hours: float, seed: int) -> Iterator[Chunk]:
    variants = split_variants(seed)
    for split, count in CHUNKS.items():
        for index in range(count):
            yield Chunk(
                name=f"{split}-{index:02d}",
                folder=output_dir.absolute() / "wav" / split,
                variants=variants[split],
                seconds=3600 * hours * SHARE[split] / count,
                seed=f"{seed} {split} {index}",
            )


def write_manifests(splits: dict[str, list[Spoken]], output_dir: Path) -> None:
    """Write cuts_SPLIT.jsonl.gz, with the words' times as lhotse alignments, and print a summary."""
    from asr.data.corpora.prepare import summary
    from asr.data.corpora.utterances import Utterance, build_cuts
    from asr.data.cuts import AlignmentItem, write_cuts

    cuts = {}
    for split, utterances in splits.items():
        words = {spoken.id: spoken.words for spoken in utterances}
        cuts[split], problems = build_cuts(
            Utterance(spoken.id, spoken.audio, spoken.text, spoken.voice, language="English")
            for spoken in utterances
        )
        if problems:
            raise OSError("\n".join(problems))
        for cut in cuts[split]:
            cut.supervisions[0].alignment = {"word": [AlignmentItem(*word) for word in words[cut.id]]}
        write_cuts(cuts[split], output_dir, split)
    print(summary(cuts))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--hours", type=float, default=1.0, help="of audio, dev and test included (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, help="processes; as many as there are processors unless given")
    arguments = parser.parse_args()
    try:
        splits = synthesize(arguments.output_dir, arguments.hours, arguments.seed, arguments.jobs)
        write_manifests(splits, arguments.output_dir)
    except ModuleNotFoundError as error:
        print(
            f"the digits need the package {error.name}: pip install 'recurrent-asr[demo,train]'",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f"cannot synthesize: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
