"""Augmentation: what it does to sound, and that the same seed does the same."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from loaders import loader_of

from asr.data.augmentation import CODECS, Augmentation, AugmentationConfig, code, make_room, mix, reverberate
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.errors import ConfigError
from asr.training.read_config import read_config

RATE = 16000


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """Two seconds of noise, most of it low, that comes and goes."""
    noise = np.random.default_rng(2).standard_normal(2 * RATE)
    low = np.convolve(noise, 0.8 ** np.arange(40))[: len(noise)]
    return (0.05 * low * (np.sin(2 * np.pi * 3 * np.arange(len(low)) / RATE) > 0)).astype(np.float32)


@pytest.fixture(scope="module")
def noises(tmp_path_factory) -> Path:
    """A folder with half a second and with five seconds of noise, one of them stereo and at another rate."""
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(3)
    (folder / "deep").mkdir()
    soundfile.write(folder / "short.wav", 0.1 * generator.standard_normal(RATE // 2), RATE)
    soundfile.write(folder / "deep" / "long.flac", 0.1 * generator.standard_normal((5 * 44100, 2)), 44100)
    (folder / "README").write_text("no audio")
    return folder


def decibels(samples: np.ndarray) -> float:
    return 10 * np.log10(np.square(samples, dtype=np.float64).mean())


def lag(one: np.ndarray, other: np.ndarray) -> int:
    """Samples by which the other comes later."""
    size = 4 * len(one)
    correlation = np.fft.irfft(np.fft.rfft(other, size) * np.conj(np.fft.rfft(one, size)), size)
    place = int(correlation.argmax())
    return place if place < size // 2 else place - size


def test_noise_has_the_ratio_asked_for(voice):
    noise = np.random.default_rng(1).standard_normal(len(voice)).astype(np.float32)
    for snr in (-5.0, 0.0, 20.0):
        mixed = mix(voice, noise, snr)
        assert decibels(voice) - decibels(mixed - voice) == pytest.approx(snr, abs=0.01)
    np.testing.assert_array_equal(mix(voice, np.zeros_like(voice), 10), voice)


def test_noise_made_up(voice):
    augment = Augmentation(AugmentationConfig(noise="generated", noise_share=1, snr_db=(10, 10)), RATE)
    mixed = augment(voice, random.Random(1))
    added = mixed - voice * np.dot(mixed, voice) / np.dot(voice, voice)
    assert 10 * np.log10(np.square(voice).sum() / np.square(added).sum()) == pytest.approx(10, abs=0.5)
    np.testing.assert_array_equal(mixed, augment(voice, random.Random(1)))
    assert not np.array_equal(mixed, augment(voice, random.Random(2)))


def test_noise_from_a_folder(voice, noises):
    config = AugmentationConfig(noise=str(noises), noise_share=1, snr_db=(10, 10))
    augmentation = Augmentation(config, RATE)
    assert [Path(path).name for path, _ in augmentation.noises] == ["long.flac", "short.wav"]
    results = [augmentation(voice, random.Random(seed)) for seed in range(8)]
    for result in results:
        assert result.shape == voice.shape
        assert decibels(voice) - decibels(result - voice) == pytest.approx(10, abs=0.1)
    assert len({result.tobytes() for result in results}) == 8
    half = Augmentation(AugmentationConfig(noise=str(noises), noise_share=0.5), RATE)
    changed = sum(not np.array_equal(half(voice, random.Random(seed)), voice) for seed in range(200))
    assert 75 < changed < 125


def test_a_room_keeps_time_and_loudness(voice):
    room = make_room(0.5, RATE, np.random.default_rng(0))
    heard = reverberate(voice, room)
    assert heard.shape == voice.shape
    assert decibels(heard) == pytest.approx(decibels(voice), abs=0.01)
    assert abs(lag(voice, heard)) <= 2
    direct = np.zeros(400, np.float32)
    direct[37] = 0.5  # the way to the microphone
    np.testing.assert_allclose(reverberate(voice, direct), voice, atol=1e-5)


def test_made_up_rooms_decay_as_asked_for():
    for seconds in (0.2, 0.8):
        room = make_room(seconds, RATE, np.random.default_rng(0))
        early, late = room[round(0.1 * len(room)) :][:800], room[round(0.6 * len(room)) :][:800]
        assert decibels(early) - decibels(late) == pytest.approx(30, abs=3)  # half of the 60 dB
        assert np.square(room[1:]).sum() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_keep_length_time_and_what_they_can_of_the_sound(voice, codec):
    heard = code(voice, RATE, codec)
    assert heard.shape == voice.shape
    assert heard.dtype == np.float32
    assert abs(lag(voice, heard)) <= 2
    assert decibels(voice) - decibels(heard - voice) > (
        1 if codec == "gsm" else 3
    )  # gsm models throats, not noise
    spectrum = np.square(np.abs(np.fft.rfft(heard)))
    above = spectrum[round(len(spectrum) * 4500 / 8000) :].sum() / spectrum.sum()
    assert (above < 1e-3) == (codec in ("8khz", "telephone", "gsm"))


def test_volume_is_within_its_range_and_nothing_overflows(voice):
    augmentation = Augmentation(AugmentationConfig(volume_db=6), RATE)
    changes = [decibels(augmentation(voice, random.Random(seed))) - decibels(voice) for seed in range(100)]
    assert -6.01 < min(changes) < -4
    assert 4 < max(changes) < 6.01
    loud = Augmentation(AugmentationConfig(volume_db=40), RATE)
    assert max(np.abs(loud(voice, random.Random(seed))).max() for seed in range(20)) == pytest.approx(1)


def test_off_by_default(voice):
    assert Augmentation(AugmentationConfig(), RATE)(voice, random.Random(0)) is voice


def test_the_same_seed_gives_the_same_batches_whatever_the_workers(tmp_path, write_audio, noises):
    utterances = [Utterance(f"u{i}", write_audio(tmp_path / f"{i}.wav", 0.5 + i / 10), "a") for i in range(8)]
    config = AugmentationConfig(
        noise=str(noises), reverberation="generated", codecs=tuple(CODECS), volume_db=3, codec_share=0.7
    )

    def epoch(number: int, **options):
        loader = loader_of(
            build_cuts(utterances)[0],
            augmentation=Augmentation(config, RATE),
            speeds=(0.9, 1.1),
            shuffle=True,
            **{"batch_seconds": 3, **options},
        )
        loader.set_epoch(number)
        return {
            name: features[:frames]
            for batch in loader
            for name, features, frames in zip(
                batch.ids, batch.features, batch.feature_lengths.tolist(), strict=True
            )
        }

    def same(one, other):
        pairs = [(one[name], other[name]) for name in sorted(one)]
        return [a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-3) for a, b in pairs]

    first = epoch(0)
    # Workers compute with one thread; with more, as this process may have, the last bits differ.
    assert all(same(first, epoch(0, workers=2)))
    assert all(same(epoch(1), epoch(1, workers=1)))
    assert not any(same(first, epoch(0, seed=1))[:8:7])
    assert sum(same(first, epoch(1))) < 3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"noise_share": 2}, r"augmentation.noise_share is 2; expected 0 or more and 1 at most"),
        ({"snr_db": (20, 5)}, r"augmentation.snr_db is 20, 5; expected the lowest and the highest"),
        ({"reverberation_seconds": (0, 1)}, r"augmentation.reverberation_seconds is 0, 1"),
        ({"codecs": ("mp5",)}, r"augmentation.codecs has 'mp5'; there are 8khz, telephone"),
        ({"volume_db": -3}, r"augmentation.volume_db is -3"),
        (
            {"noise": "/no/such/folder"},
            r"augmentation.noise is '/no/such/folder'; expected a folder with audio",
        ),
    ],
)
def test_mistakes_in_the_configuration(choices, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation(AugmentationConfig(**choices), RATE)


def test_a_codec_that_does_not_know_the_rate_is_refused():
    with pytest.raises(ConfigError, match=r"codecs at 22050 Hz: cannot encode as opus: Opus only supports"):
        Augmentation(AugmentationConfig(codecs=("mp3", "opus")), 22050)


def test_the_configuration_reaches_training():
    config = read_config(["--augmentation.codecs=[mp3,gsm]", "--augmentation.snr_db=[0,30]"])
    assert config.augmentation == AugmentationConfig(codecs=("mp3", "gsm"), snr_db=(0.0, 30.0))
