"""What may happen to speech on its way to a microphone: rooms, noise, codecs, loudness, drawn anew in each epoch.

Speed perturbation belongs to the sampler (`loading.BatchSampler`), since it changes lengths; SpecAugment to the
features (`asr.features`).
"""

import functools
import io
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import soxr

from asr.audio import audio_files, load_audio
from asr.errors import AudioError, ConfigError, check_bounds

GENERATED = "generated"
NARROW = 8000  # Hz, the sample rate of telephones
# name: (sample rate, container, subtype) as libsndfile calls them; the rate None is the audio's own.
CODECS = {
    "8khz": (NARROW, "WAV", "PCM_16"),
    "telephone": (NARROW, "WAV", "ULAW"),
    "gsm": (NARROW, "WAV", "GSM610"),
    "mp3": (None, "MP3", "MPEG_LAYER_III"),
    "vorbis": (None, "OGG", "VORBIS"),
    "opus": (None, "OGG", "OPUS"),
}
WITH_QUALITY = {"mp3", "vorbis", "opus"}  # whose compression is drawn too


@dataclass(frozen=True)
class AugmentationConfig:
    """What training audio goes through, in this order; every part is off by default.

    Attributes:
        reverberation: folder of room impulse responses, or "generated" for rooms made up; "" for none.
        reverberation_share: share of the utterances that are put into a room.
        reverberation_seconds: shortest and longest time in which a made-up room's echo falls by 60 dB.
        noise: folder of recordings, at any depth, to mix in, or "generated" for hiss and rumble; "" for none.
        noise_share: share of the utterances that get noise.
        snr_db: lowest and highest ratio of speech to noise, in dB.
        codecs: codecs of which one is drawn: 8khz (the band alone), telephone (8 kHz, mu-law), gsm, mp3, vorbis, opus.
        codec_share: share of the utterances that go through a codec.
        volume_db: most by which an utterance is made louder or softer. Features that are normalized by utterance do
            not see it.
    """

    reverberation: str = ""
    reverberation_share: float = 0.5
    reverberation_seconds: tuple[float, float] = (0.2, 0.8)
    noise: str = ""
    noise_share: float = 0.5
    snr_db: tuple[float, float] = (5.0, 20.0)
    codecs: tuple[str, ...] = ()
    codec_share: float = 0.3
    volume_db: float = 0.0

    def __post_init__(self):
        shares = ("reverberation_share", "noise_share", "codec_share")
        check_bounds("augmentation", self, *shares, least=0, most=1)
        check_bounds("augmentation", self, "volume_db", least=0)
        for name in ("reverberation_seconds", "snr_db"):
            low, high = getattr(self, name)
            if not low <= high or (name == "reverberation_seconds" and low <= 0):
                raise ConfigError(
                    f"augmentation.{name} is {low}, {high}; expected the lowest and the highest"
                )
        for codec in self.codecs:
            if codec not in CODECS:
                raise ConfigError(f"augmentation.codecs has {codec!r}; there are {', '.join(CODECS)}")


class Augmentation:
    """Samples to samples, as AugmentationConfig says; the same draws give the same samples.

    Arguments: config; sample_rate of the samples in Hz. Raises ConfigError for a folder without audio, and for a codec
    that does not know this rate.

    >>> augmentation = Augmentation(AugmentationConfig(reverberation="generated", codecs=("telephone",)), 16000)
    >>> augmentation(np.ones(16000, np.float32), random.Random(1)).shape
    (16000,)
    """

    def __init__(self, config: AugmentationConfig, sample_rate: int):
        self.config = config
        self.sample_rate = sample_rate
        self.noises = _audio_in(config.noise if config.noise != GENERATED else "", "noise")
        rooms = config.reverberation if config.reverberation != GENERATED else ""
        self.rooms = _audio_in(rooms, "reverberation")
        for codec in config.codecs:
            try:
                code(np.zeros(sample_rate, np.float32), sample_rate, codec)
            except AudioError as error:
                raise ConfigError(f"augmentation.codecs at {sample_rate} Hz: {error}") from error

    def __call__(self, samples: np.ndarray, chance: random.Random) -> np.ndarray:
        """Return augmented samples (time,) float32 of the same length, within [-1, 1]."""
        config = self.config
        if config.reverberation and chance.random() < config.reverberation_share:
            samples = reverberate(samples, self._room(chance))
        if config.noise and chance.random() < config.noise_share:
            samples = mix(samples, self._noise(len(samples), chance), chance.uniform(*config.snr_db))
        if config.codecs and chance.random() < config.codec_share:
            samples = code(samples, self.sample_rate, chance.choice(config.codecs), chance.uniform(0.2, 0.9))
        if config.volume_db:
            samples = samples * np.float32(10 ** (chance.uniform(-config.volume_db, config.volume_db) / 20))
        peak = float(np.abs(samples).max(initial=0))
        return samples / np.float32(peak) if peak > 1 else samples

    def _room(self, chance: random.Random) -> np.ndarray:
        if self.rooms:
            return _whole(chance.choice(self.rooms)[0], self.sample_rate)
        seconds = chance.uniform(*self.config.reverberation_seconds)
        return make_room(seconds, self.sample_rate, np.random.default_rng(chance.getrandbits(63)))

    def _noise(self, length: int, chance: random.Random) -> np.ndarray:
        """Cut `length` samples out of a recording; a short one is repeated."""
        if not self.noises:
            return make_noise(length, chance.uniform(0, 1), np.random.default_rng(chance.getrandbits(63)))
        path, seconds = chance.choice(self.noises)
        offset = chance.uniform(0, max(0.0, seconds - length / self.sample_rate))
        # Read each time: a folder of noise may be larger than the memory.
        noise = load_audio(path, self.sample_rate, offset=offset, duration=length / self.sample_rate)
        if len(noise) < length:
            noise = np.resize(np.roll(noise, chance.randrange(len(noise))), length)
        return noise


def _audio_in(folder: str, key: str) -> list[tuple[str, float]]:
    """List a folder's audio files in a fixed order: (path, seconds)."""
    if not folder:
        return []
    try:
        found = [(str(path), soundfile.info(path).duration) for path in audio_files(folder)]
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"augmentation.{key}: {error}") from error
    if not found:
        raise ConfigError(f"augmentation.{key} is {folder!r}; expected a folder with audio files")
    return found


@functools.lru_cache(maxsize=256)
def _whole(path: str, sample_rate: int) -> np.ndarray:
    return load_audio(path, sample_rate)


def reverberate(samples: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Let samples sound in a room, at the loudness and the time that they had.

    Arguments: samples (time,); room (time,), its impulse response, of which the highest peak is the direct sound.
    """
    length = len(samples) + len(room) - 1
    size = -(-length // 4096) * 4096  # no large prime factors, which the Fourier transform is slow at
    import torch  # not to read a configuration

    spectrum = torch.fft.rfft(torch.from_numpy(samples), size) * torch.fft.rfft(torch.from_numpy(room), size)
    heard = torch.fft.irfft(spectrum, size).numpy()
    heard = heard[int(np.abs(room).argmax()) :][: len(samples)]
    return heard * np.float32(_loudness(samples) / max(_loudness(heard), 1e-9))


def make_room(seconds: float, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Make up an impulse response: the direct sound, then noise that decays by 60 dB in `seconds` (Polack 1988).

    The direct sound and its echo are equally strong, as at some meters from the speaker.
    """
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    echo = generator.standard_normal(len(time)) * np.exp(-3 * math.log(10) * time / seconds)
    echo[: round(0.002 * sample_rate)] = 0  # nothing is nearer than a way of 0.7 m more
    echo /= math.sqrt(np.square(echo).sum())
    echo[0] = 1.0
    return echo.astype(np.float32)


def make_noise(length: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Make up noise whose amplitudes fall as frequency**-slope: 0 hisses evenly (white), 1 rumbles (brown)."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    return np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope, length).astype(np.float32)


def mix(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise of the same length, so much weaker than the samples."""
    loudness = _loudness(noise)
    if loudness == 0:
        return samples
    return samples + noise * np.float32(_loudness(samples) / loudness * 10 ** (-snr_db / 20))


def code(samples: np.ndarray, sample_rate: int, codec: str, compression: float = 0.5) -> np.ndarray:
    """Encode and decode samples with one of CODECS; compression from 0, the least, to 1."""
    rate, container, subtype = CODECS[codec]
    narrow = samples if rate is None else soxr.resample(samples, sample_rate, rate)
    file = io.BytesIO()
    quality: dict[str, Any] = {"compression_level": compression} if codec in WITH_QUALITY else {}
    try:
        soundfile.write(file, narrow, rate or sample_rate, format=container, subtype=subtype, **quality)
        file.seek(0)
        decoded, decoded_rate = soundfile.read(file, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"cannot encode as {codec}: {error.error_string.removeprefix('Error : ')}"
        ) from error
    if decoded_rate != sample_rate:
        decoded = soxr.resample(decoded, decoded_rate, sample_rate)
    return np.pad(decoded[: len(samples)], (0, max(0, len(samples) - len(decoded))))


def _loudness(samples: np.ndarray) -> float:
    """Root mean square."""
    return math.sqrt(float(np.square(samples, dtype=np.float64).mean())) if len(samples) else 0.0
