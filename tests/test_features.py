import math
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import load_audio
from asr.errors import ConfigError
from asr.features import FeatureConfig, SpecAugmentConfig, frame_count
from asr.features.config import FLOOR
from asr.features.log_mel import LogMel, log_mel
from asr.features.spec_augment import SpecAugment
from asr.features.spectrogram import spectrogram

RATE = 16000


def speech_like(seconds=2.0, rate=RATE, seed=0):
    """A buzz that comes and goes over faint noise: 60 dB between the loudest and the quietest bands."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    buzz = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / rate) / k**2 for k in range(1, 20))
    loudness = np.clip(np.sin(2 * np.pi * 1.5 * time), 0, None) ** 2
    return (0.3 * buzz * loudness + 1e-4 * draw.standard_normal(len(time))).astype(np.float32)


def by_librosa(
    samples, rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80, f_min=20.0, f_max=None
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa's own, while it is imported
        import librosa

        mel = librosa.feature.melspectrogram(
            y=samples,
            sr=rate,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            window="hann",
            center=True,
            pad_mode="constant",
            power=2.0,
            n_mels=n_mels,
            fmin=f_min,
            fmax=f_max,
            htk=False,
            norm="slaney",
        )
    return np.log(np.maximum(mel, FLOOR)).T


def batch_of(*samples):
    lengths = torch.tensor([len(s) for s in samples])
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(s) for s in samples], batch_first=True), lengths


class TestLogMel:
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"n_mels": 40, "f_min": 0.0, "f_max": 4000.0},
            {"n_fft": 400, "win_length": 400},
            {"n_fft": 1024, "win_length": 801, "hop_length": 200, "n_mels": 128},
            {"rate": 8000, "n_fft": 256, "win_length": 200, "hop_length": 80, "n_mels": 40},
        ],
        ids=str,
    )
    def test_equals_librosa(self, how):
        samples = speech_like(rate=how.get("rate", RATE))
        ours = {"sample_rate": how.get("rate", RATE)} | {k: v for k, v in how.items() if k != "rate"}
        features, lengths = log_mel(torch.from_numpy(samples)[None], **ours)
        expected = by_librosa(samples, **how)
        assert features.shape[1] == lengths.item() == len(expected)
        np.testing.assert_allclose(features[0].numpy(), expected, rtol=0, atol=1e-5)

    def test_equals_librosa_on_real_speech(self, shared_data):
        recordings = [
            *sorted((shared_data / "an4/wav/an4_clstk/fash").glob("*.sph"))[:4],
            *sorted((shared_data / "LibriSpeech").rglob("*.flac"))[:2],
            *sorted((shared_data / "speechocean762").rglob("*.ogg"))[:4],
            *sorted((shared_data / "fsdd/recordings").glob("*.wav"))[:4],  # upsampled: empty above 4 kHz
        ]
        assert len(recordings) == 14
        utterances = [load_audio(path) for path in recordings]
        features, lengths = log_mel(*batch_of(*utterances))
        for samples, ours, length in zip(utterances, features, lengths, strict=True):
            np.testing.assert_allclose(ours[:length].numpy(), by_librosa(samples), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("samples", [1, 159, 160, 161, 399, 16000, 16001, 170000])
    def test_frame_count(self, samples):
        features, lengths = log_mel(torch.zeros(1, samples))
        assert features.shape == (1, frame_count(samples, 160), 80)
        assert lengths.item() == features.shape[1] == len(by_librosa(np.zeros(samples, np.float32)))

    def test_frame_count_of_tensors(self):
        assert frame_count(torch.tensor([0, 1, 160, 319, 320]), 160).tolist() == [0, 1, 2, 2, 3]

    @settings(max_examples=25, deadline=None)
    @given(lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=5), seed=st.integers(0, 99))
    def test_an_utterance_alone_and_in_a_batch(self, lengths, seed):
        torch.manual_seed(seed)
        samples = torch.randn(len(lengths), max(lengths) + 500)  # and what lies in the padding does not count
        together, counts = log_mel(samples, torch.tensor(lengths))
        for i, length in enumerate(lengths):
            alone, _ = log_mel(samples[i : i + 1, :length])
            assert counts[i] == alone.shape[1]
            torch.testing.assert_close(together[i, : counts[i]], alone[0], rtol=0, atol=1e-5)
            assert not together[i, counts[i] :].any()

    def test_nan_in_the_padding_does_not_count(self):
        samples = torch.randn(2, 4000)
        samples[0, 1000:] = torch.nan
        features, _ = LogMel(FeatureConfig())(samples, torch.tensor([1000, 4000]))
        assert features.isfinite().all()

    def test_nothing(self):
        features, lengths = log_mel(torch.zeros(2, 0))
        assert features.shape == (2, 0, 80)
        assert lengths.tolist() == [0, 0]
        features, lengths = log_mel(torch.ones(2, 800), torch.tensor([0, 800]))
        assert lengths.tolist() == [0, 6]
        assert not features[0].any()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_keeps_the_type(self, dtype):
        samples = torch.from_numpy(speech_like()).to(dtype)[None]
        features, _ = log_mel(samples)
        assert features.dtype == dtype
        expected, _ = log_mel(samples.float())
        torch.testing.assert_close(features.float(), expected, rtol=1e-3, atol=1e-5)

    def test_autocast_does_not_touch_it(self):
        samples = torch.from_numpy(speech_like())[None]
        with torch.autocast("cpu", torch.bfloat16):
            inside, _ = log_mel(samples)
        assert torch.equal(inside, log_mel(samples)[0])

    def test_wrong_arguments(self):
        for samples in (torch.zeros(100), torch.zeros(1, 100, dtype=torch.int16)):
            with pytest.raises(ValueError, match="expected float samples"):
                log_mel(samples)
        with pytest.raises(ValueError, match="expected lengths"):
            log_mel(torch.zeros(2, 100), torch.tensor([100]))

    def test_differentiable_after_use_in_inference_mode(self):
        with torch.inference_mode():
            log_mel(torch.randn(1, 900), n_mels=33, win_length=333)
        samples = torch.randn(1, 900, requires_grad=True)
        log_mel(samples, n_mels=33, win_length=333)[0].sum().backward()
        assert samples.grad is not None
        assert samples.grad.isfinite().all()

    @pytest.mark.gpu
    def test_on_a_gpu(self):
        samples, lengths = batch_of(speech_like(2.0), speech_like(1.3, seed=1))
        here = LogMel(FeatureConfig())(samples, lengths)
        there = LogMel(FeatureConfig()).cuda()(samples.cuda(), lengths.cuda())
        for ours, theirs in zip(here, there, strict=True):
            torch.testing.assert_close(ours, theirs.cpu(), rtol=0, atol=1e-5)


class TestNormalization:
    def test_of_each_utterance(self):
        samples, lengths = batch_of(speech_like(2.0), speech_like(0.7, seed=1))
        features, counts = LogMel(FeatureConfig())(samples, lengths)
        for own, count in zip(features, counts, strict=True):
            torch.testing.assert_close(own[:count].mean(0), torch.zeros(80), rtol=0, atol=1e-5)
            torch.testing.assert_close(own[:count].std(0, correction=0), torch.ones(80), rtol=0, atol=1e-4)
            assert not own[count:].any()

    @pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
    def test_an_utterance_alone_and_in_a_batch(self, normalize):
        utterances = [torch.from_numpy(speech_like(s, seed=i)) for i, s in enumerate((2.0, 0.5, 0.013))]
        module = LogMel(FeatureConfig(normalize=normalize))
        if normalize == "global":
            module.fit_statistics(utterances)
        together, counts = module(*batch_of(*utterances))
        for samples, own, count in zip(utterances, together, counts, strict=True):
            torch.testing.assert_close(own[:count], module(samples[None])[0][0], rtol=0, atol=1e-5)
            assert not own[count:].any()

    def test_loudness_does_not_matter(self):
        samples = torch.from_numpy(speech_like())
        samples += 1e-3 * torch.randn(len(samples), generator=torch.Generator().manual_seed(0))
        features, _ = LogMel(FeatureConfig())(torch.stack([samples, 0.1 * samples]))
        torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-3)

    @pytest.mark.parametrize(("decibels", "left"), [(0, 0), (5, 5), (-5, -5), (20, 0), (-20, 0), (-30, 0)])
    def test_far_from_the_training_data_s_level_is_brought_to_it(self, decibels, left):
        samples = torch.from_numpy(speech_like())
        samples += 1e-2 * torch.randn(len(samples), generator=torch.Generator().manual_seed(0))
        module = LogMel(FeatureConfig(normalize="global"))
        module.fit_statistics([samples, 2 * samples, samples / 2])  # a standard deviation of 4.9 dB
        own = module(samples[None])[0]
        changed = module((samples * 10 ** (decibels / 20))[None], leveled=True)[0]
        expected = torch.full_like(own, left * math.log(10) / 10)
        torch.testing.assert_close((changed - own) * module.std, expected, rtol=0, atol=0.01)

    def test_silence_around_the_speech_does_not_matter(self):
        samples = torch.from_numpy(speech_like(1.0))
        module = LogMel(FeatureConfig(normalize="global"))
        module.fit_statistics([samples])
        alone = module(samples[None], leveled=True)[0]
        padded = module(F.pad(samples, (2 * RATE, 5 * RATE))[None], leveled=True)[0]
        inner = slice(5, -5)  # windows that see the samples alone
        torch.testing.assert_close(padded[:, 200:301][:, inner], alone[:, inner], rtol=0, atol=1e-4)

    def test_noise_without_speech_is_not_made_loud(self):
        noise = 1e-4 * torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
        module = LogMel(FeatureConfig(normalize="global"))
        module.fit_statistics([speech_like(1.0)])
        assert torch.equal(module(noise[None], leveled=True)[0], module(noise[None])[0])

    def test_silence_stays_silent(self):
        for samples in (torch.zeros(1, RATE * 30), torch.full((1, RATE), 0.5)):
            features, _ = LogMel(FeatureConfig())(samples)
            inner = features[:, 2:-2]  # a constant steps up and down at its ends
            assert features.isfinite().all()
            assert inner.abs().max() < 1.5
        assert not LogMel(FeatureConfig())(torch.zeros(1, RATE * 30))[0].abs().max() > 1e-3

    def test_of_the_training_data(self):
        utterances = [speech_like(1.0, seed=i) for i in range(3)]
        module = LogMel(FeatureConfig(normalize="global"))
        assert module(torch.randn(1, 800))[0].isnan().all()  # not fitted yet
        module.fit_statistics(iter(utterances))
        frames = np.concatenate([by_librosa(samples) for samples in utterances])
        np.testing.assert_allclose(module.mean.numpy(), frames.mean(0), atol=1e-4)
        np.testing.assert_allclose(module.std.numpy(), frames.std(0), atol=1e-4)
        copy = LogMel(FeatureConfig(normalize="global"))
        copy.load_state_dict(module.state_dict())
        samples = torch.from_numpy(utterances[0])[None]
        assert torch.equal(copy(samples)[0], module(samples)[0])

    def test_statistics_of_nothing(self):
        with pytest.raises(ValueError, match="no frames"):
            LogMel(FeatureConfig(normalize="global")).fit_statistics([])
        with pytest.raises(ValueError, match="no statistics"):
            LogMel(FeatureConfig()).fit_statistics([np.ones(800, np.float32)])

    def test_statistics_of_silence(self):
        module = LogMel(FeatureConfig(normalize="global"))
        module.fit_statistics([np.zeros(RATE, np.float32)])
        assert module(torch.randn(1, RATE))[0].isfinite().all()

    def test_without_statistics_there_is_nothing_to_save(self):
        assert not LogMel(FeatureConfig()).state_dict()


class TestConfig:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"hop_length": 0}, "hop_length is 0"),
            ({"n_fft": 256}, "n_fft is 256 samples"),
            ({"n_fft": 513}, "even"),
            ({"f_max": 9000.0}, "8000.0, half the sample rate"),
            ({"f_min": 5000.0, "f_max": 4000.0}, "f_min < f_max"),
            ({"normalize": "batch"}, "'batch'"),
            ({"n_mels": 200}, "fewer bands"),
        ],
        ids=str,
    )
    def test_refuses(self, wrong, said):
        with pytest.raises(ConfigError, match=said):
            FeatureConfig(**wrong)

    def test_modules_can_be_pickled(self):
        module = pickle.loads(pickle.dumps(LogMel(FeatureConfig(n_mels=40))))
        assert module(torch.randn(1, 800))[0].shape == (1, 6, 40)


class TestSpecAugment:
    def masked(self, config, features, lengths, seed=0):
        return SpecAugment(config)(features, lengths, torch.Generator().manual_seed(seed))

    def test_masks_are_whole_bands_and_times_and_the_rest_is_untouched(self):
        features = torch.randn(8, 300, 80) + 9
        before = features.clone()
        masked = self.masked(SpecAugmentConfig(), features, torch.full((8,), 300))
        assert torch.equal(features, before)
        hidden = masked == 0
        assert torch.equal(masked[~hidden], features[~hidden])
        for own in hidden:
            times, bands = own.all(1), own.all(0)
            assert torch.equal(own, times[:, None] | bands[None, :])
            assert times.sum() <= 2 * 60  # a fifth of 300
            assert bands.sum() <= 2 * 27
        assert hidden.any((1, 2)).all()
        assert not torch.equal(hidden[0], hidden[1])

    @settings(max_examples=30, deadline=None)
    @given(
        lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
        width=st.integers(0, 40),
        share=st.floats(0, 1),
        bands=st.integers(0, 30),
        seed=st.integers(0, 99),
    )
    def test_widths_keep_to_each_utterances_share(self, lengths, width, share, bands, seed):
        config = SpecAugmentConfig(1, bands, 1, width, share)
        features = torch.ones(len(lengths), 60, 20)
        hidden = self.masked(config, features, torch.tensor(lengths), seed) == 0
        for own, length in zip(hidden, lengths, strict=True):
            times, hidden_bands = own.all(1), own.all(0)
            assert hidden_bands.sum() <= min(bands, 20)
            if not hidden_bands.all():
                assert times.sum() <= min(width, share * length)
                assert not times[length:].any()

    def test_widths_and_starts_are_uniform(self):
        config = SpecAugmentConfig(frequency_masks=0, time_masks=1, time_width=4, time_share=1.0)
        hidden = self.masked(config, torch.ones(20000, 6, 1), torch.full((20000,), 6)) == 0
        hidden = hidden[:, :, 0].int()
        widths = torch.bincount(hidden.sum(1), minlength=5) / 20000
        torch.testing.assert_close(widths, torch.full((5,), 0.2), rtol=0, atol=0.02)
        pairs = hidden[hidden.sum(1) == 2]
        starts = torch.bincount(pairs.argmax(1), minlength=5) / len(pairs)
        torch.testing.assert_close(starts, torch.full((5,), 0.2), rtol=0, atol=0.03)

    def test_the_generator_decides(self):
        features, lengths = torch.randn(4, 200, 80), torch.tensor([200, 150, 100, 50])
        first, again, other = (
            self.masked(SpecAugmentConfig(), features, lengths, seed) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_evaluation_and_no_masks_change_nothing(self):
        features, lengths = torch.randn(2, 50, 80), torch.tensor([50, 40])
        assert SpecAugment(SpecAugmentConfig()).eval()(features, lengths) is features
        assert torch.equal(self.masked(SpecAugmentConfig(0, 27, 0, 100), features, lengths), features)

    def test_warped_tones_lie_where_another_vocal_tract_puts_them(self):
        """A tone of f Hz is found at f / factor, the factors uniform within the share."""
        config = FeatureConfig(normalize="none")
        centers = config.mel_centers()
        time = torch.arange(16000) / 16000
        tone, lengths = LogMel(config)(torch.sin(2 * torch.pi * 2000 * time).expand(500, -1))
        augment = SpecAugment(SpecAugmentConfig(0, 0, 0, 0, frequency_warp=0.1), centers)
        warped = augment(tone, lengths, torch.Generator().manual_seed(1))
        assert warped.shape == tone.shape
        factors = 2000 / centers[warped[:, 50].argmax(1)]
        assert 0.88 < factors.min() < 0.93
        assert 1.07 < factors.max() < 1.12
        assert factors.mean() == pytest.approx(1, abs=0.01)

    def test_the_smallest_warp_changes_next_to_nothing_and_padding_stays_zero(self):
        features, lengths = LogMel(FeatureConfig())(torch.randn(3, 8000), torch.tensor([8000, 4000, 0]))
        augment = SpecAugment(
            SpecAugmentConfig(0, 0, 0, 0, frequency_warp=1e-6), FeatureConfig().mel_centers()
        )
        torch.testing.assert_close(augment(features, lengths), features, rtol=0, atol=1e-3)
        strong = SpecAugment(SpecAugmentConfig(0, 0, 0, 0, frequency_warp=0.3), FeatureConfig().mel_centers())
        assert not strong(features, lengths)[1, 26:].any()

    def test_refuses(self):
        with pytest.raises(ConfigError, match=r"frequency_warp is 1\.0; expected 0 or more and less than 1"):
            SpecAugmentConfig(frequency_warp=1.0)
        with pytest.raises(ValueError, match="frequency_warp needs the centers"):
            SpecAugment(SpecAugmentConfig(frequency_warp=0.1))
        with pytest.raises(ConfigError, match=r"time_share is 1\.5"):
            SpecAugmentConfig(time_share=1.5)
        with pytest.raises(ConfigError, match="time_masks is -1"):
            SpecAugmentConfig(time_masks=-1)

    @pytest.mark.gpu
    def test_on_a_gpu_with_a_generator_of_either_device(self):
        features, lengths = torch.randn(4, 200, 80), torch.tensor([200, 150, 100, 50])
        augment = SpecAugment(SpecAugmentConfig())
        here = augment(features, lengths, torch.Generator().manual_seed(1))
        there = augment(features.cuda(), lengths.cuda(), torch.Generator().manual_seed(1))
        assert torch.equal(here, there.cpu())
        assert (augment(features.cuda(), lengths, torch.Generator("cuda").manual_seed(1)) == 0).any()


@pytest.mark.parametrize("samples", [0, 1, 159, 16000])
def test_the_spectrogram_of_pictures_is_that_of_the_model(samples):
    config = FeatureConfig(n_mels=40, win_length=320, normalize="none")
    speech = speech_like()[:samples]
    (expected,), _ = LogMel(config)(torch.from_numpy(speech)[None])
    np.testing.assert_allclose(spectrogram(speech, config), expected, atol=1e-5)
