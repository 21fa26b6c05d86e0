"""The loader: every utterance once an epoch, the same with any number of workers, and nothing stops it."""

import multiprocessing
import os
import pickle
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loaders import loader_of

from asr.data import Batch, BatchLimits, BatchOrder, Cut, load_cuts, read_samples
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import write_cuts
from asr.data.sampling import BatchSampler
from asr.errors import AudioError, ConfigError, ManifestError
from asr.features import FeatureConfig, SpecAugmentConfig
from asr.features.log_mel import LogMel
from asr.features.spec_augment import SpecAugment
from asr.text import CharacterTokenizer

LENGTHS = [0.3 + 0.07 * (index % 23) for index in range(40)]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory, write_audio) -> Sequence[Cut]:
    """Forty utterances of 0.3 to 1.84 s."""
    folder = tmp_path_factory.mktemp("audio")
    utterances = [
        Utterance(f"u{index:02d}", write_audio(folder / f"{index}.wav", seconds), "ab"[: 1 + index % 2])
        for index, seconds in enumerate(LENGTHS)
    ]
    return build_cuts(utterances)[0]


def epoch(loader, number: int = 0) -> list[Batch]:
    loader.set_epoch(number)
    return list(loader)


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert [batch.ids for batch in left] == [batch.ids for batch in right]
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
        assert one.tokens.tolist() == other.tokens.tolist()


def test_a_batch_is_padded_and_says_what_it_holds(cuts):
    (batch,) = epoch(loader_of(cuts[:3], batch_seconds=100))
    assert batch.features.shape == (3, 45, 8)
    assert dict(zip(batch.ids, batch.feature_lengths.tolist(), strict=True)) == {
        "u00": 31,
        "u01": 38,
        "u02": 45,
    }
    assert batch.seconds == pytest.approx(sum(LENGTHS[:3]))
    assert batch.features.dtype == torch.float32
    assert batch.feature_lengths.dtype == batch.tokens.dtype == batch.token_lengths.dtype == torch.int64
    for index, name in enumerate(batch.ids):
        assert not batch.features[index, batch.feature_lengths[index] :].any()
        target = batch.tokens[index, : batch.token_lengths[index]].tolist()
        assert (batch.texts[index], target) == (("ab", [1, 2]) if name == "u01" else ("a", [1]))
        assert not batch.tokens[index, batch.token_lengths[index] :].any()
        alone = LogMel(FeatureConfig(n_mels=8))(
            torch.from_numpy(read_samples(cuts[int(name[1:])], 16000)).unsqueeze(0)
        )[0][0]
        torch.testing.assert_close(batch.features[index, : batch.feature_lengths[index]], alone)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_utterance_once_an_epoch(cuts, workers, shuffle):
    loader = loader_of(cuts, workers=workers, shuffle=shuffle)
    for number in range(2):
        batches = epoch(loader, number)
        assert len(batches) == len(loader)
        assert Counter(name for batch in batches for name in batch.ids) == Counter(cut.id for cut in cuts)


def test_batches_do_not_depend_on_the_workers_and_change_with_the_epoch(cuts):
    options = {
        "shuffle": True,
        "speeds": (0.9, 1.0, 1.1),
        "spec_augment": SpecAugment(SpecAugmentConfig(frequency_width=3)),
        "seed": 3,
    }
    alone, shared = loader_of(cuts, **options), loader_of(cuts, workers=2, **options)
    first = epoch(alone)
    assert_equal(first, epoch(shared))
    second = epoch(alone, 1)
    assert [batch.ids for batch in second] != [batch.ids for batch in first]
    assert_equal(second, epoch(shared, 1))
    assert_equal(first, epoch(alone, 0))
    other = loader_of(cuts, **{**options, "seed": 4})
    assert [batch.ids for batch in epoch(other)] != [batch.ids for batch in first]


def test_spec_augment_hides_features(cuts):
    augment = SpecAugment(SpecAugmentConfig(frequency_masks=1, frequency_width=7, time_masks=0))
    plain, masked = (epoch(loader_of(cuts, spec_augment=choice)) for choice in (None, augment))
    hidden = sum(int((batch.features == 0).sum()) for batch in masked)
    assert hidden > sum(int((batch.features == 0).sum()) for batch in plain)


def test_speed_perturbation_changes_length_and_pitch(tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    soundfile.write(tmp_path / "tone.wav", 0.5 * tone, 16000)
    cuts = build_cuts([Utterance(f"u{index:02d}", tmp_path / "tone.wav", "a") for index in range(30)])[0]
    log_mel = LogMel(FeatureConfig(normalize="none"))
    batches = epoch(loader_of(cuts, log_mel=log_mel, speeds=(0.9, 1.1), shuffle=True))
    loudest = {
        (frames, int(features[frames // 2].argmax()))
        for batch in batches
        for features, frames in zip(batch.features, batch.feature_lengths.tolist(), strict=True)
    }
    (fast, high), (slow, low) = sorted(loudest)
    assert (fast, slow) == (182, 223)
    assert high > low


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.floats(0.1, 30), min_size=1, max_size=200),
    batch_seconds=st.floats(1, 100),
    max_batch_size=st.integers(1, 20),
    speeds=st.sampled_from([(), (0.9, 1.0, 1.1)]),
    shuffle=st.booleans(),
    sortagrad=st.booleans(),
    seed=st.integers(0, 100),
    world_size=st.integers(1, 4),
)
def test_batches_are_bounded_and_complete_over_all_processes(
    lengths, batch_seconds, max_batch_size, speeds, shuffle, sortagrad, seed, world_size
):
    cuts = [_SilentCut(str(index), length) for index, length in enumerate(lengths)]
    sampler = BatchSampler(
        cuts,
        BatchLimits(batch_seconds=batch_seconds, max_batch_size=max_batch_size),
        BatchOrder(speeds=speeds, shuffle=shuffle, sortagrad=sortagrad, seed=seed),
    )
    for number in range(2):
        sampler.set_epoch(number)
        with pytest.MonkeyPatch.context() as patch:
            batches = []
            for rank in range(world_size):
                patch.setattr("asr.data.sampling.processes", lambda rank=rank: (rank, world_size))
                try:
                    share = [batch for _, batch in sampler]
                except ManifestError:
                    assert len(lengths) % world_size  # batches of one, which cannot be halved
                    return
                assert len(share) == len(sampler)
                assert share == [batch for _, batch in sampler]  # the same seed, the same epoch
                batches += share
        assert sorted(int(cut.id) for batch in batches for cut, _ in batch) == list(range(len(lengths)))
        for batch in batches:
            longest = max(cut.duration / speed for cut, speed in batch)
            assert len(batch) <= max_batch_size
            assert len(batch) == 1 or len(batch) * longest <= batch_seconds * (1 + 1e-9)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_share_an_epoch_without_overlap(monkeypatch, world_size):
    cuts = [_SilentCut(str(index), 1 + index % 9) for index in range(400)]
    sampler = BatchSampler(
        cuts,
        BatchLimits(batch_seconds=40, max_batch_size=64),
        BatchOrder(speeds=(), shuffle=True, seed=0),
    )
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr("asr.data.sampling.processes", lambda rank=rank: (rank, world_size))
        shares.append([batch for _, batch in sampler])
        assert len(shares[-1]) == len(sampler)
    assert sorted(int(cut.id) for share in shares for batch in share for cut, _ in batch) == list(range(400))
    for batches in zip(*shares, strict=True):  # similar lengths, so that no process waits for another
        longest = [max(cut.duration for cut, _ in batch) for batch in batches]
        assert max(longest) - min(longest) <= 2


@pytest.mark.parametrize("speeds", [(), (0.9, 1.0, 1.1)])
def test_less_than_a_twentieth_is_padding_at_librispeechs_lengths(speeds):
    # Cut near 15 s where a pause allows, the rest what was left of a chapter: 12.7 s on average, as train-clean-100.
    chance = np.random.default_rng(0)
    lengths = np.where(
        chance.random(5000) < 0.7, chance.normal(14.5, 1.3, 5000), chance.uniform(1.5, 15, 5000)
    )
    cuts = [_SilentCut(f"{index:04d}", float(length)) for index, length in enumerate(lengths.clip(1.4, 17))]
    for batch_seconds in (120, 600):
        sampler = BatchSampler(
            cuts,
            BatchLimits(batch_seconds=batch_seconds, max_batch_size=64),
            BatchOrder(speeds=speeds, shuffle=True, seed=0),
        )
        seconds = padded = 0.0
        for _, batch in sampler:
            spoken = [cut.duration / speed for cut, speed in batch]
            seconds += sum(spoken)
            padded += len(spoken) * max(spoken)
        assert 1 - seconds / padded < 0.05


def test_neighbors_are_joined_and_every_one_of_them_is_there_once(cuts):
    options = {"tokenizer": CharacterTokenizer([" ", "a", "b"]), "shuffle": True}
    apart = epoch(loader_of(cuts, **options))
    joined = epoch(loader_of(cuts, join_utterances=3, **options))
    assert [[name for names in batch.ids for name in names.split("+")] for batch in joined] == [
        batch.ids for batch in apart
    ]
    counts = [names.count("+") + 1 for batch in joined for names in batch.ids]
    assert set(counts) == {1, 2, 3}
    texts = {name: text for batch in apart for name, text in zip(batch.ids, batch.texts, strict=True)}
    for batch in joined:
        for names, text in zip(batch.ids, batch.texts, strict=True):
            assert text == " ".join(texts[name] for name in names.split("+"))
    assert [batch.seconds for batch in joined] == pytest.approx([batch.seconds for batch in apart])
    assert_equal(joined, epoch(loader_of(cuts, join_utterances=3, workers=2, **options)))


def test_views_of_an_utterance_differ_by_their_masks(cuts):
    options = {"spec_augment": SpecAugment(SpecAugmentConfig()), "shuffle": True}
    (one, *_), (two, *_) = epoch(loader_of(cuts, **options)), epoch(loader_of(cuts, views=2, **options))
    assert two.views == 2
    for name in ("ids", "texts"):
        assert getattr(two, name)[::2] == getattr(two, name)[1::2] == getattr(one, name)
    for name in ("feature_lengths", "tokens", "token_lengths"):
        torch.testing.assert_close(getattr(two, name)[::2], getattr(one, name))
        torch.testing.assert_close(getattr(two, name)[1::2], getattr(one, name))
    assert two.seconds == one.seconds
    first, second = two.features[::2], two.features[1::2]
    seen = (first != 0) & (second != 0)
    torch.testing.assert_close(first[seen], second[seen])
    assert ((first != 0) != (second != 0)).any()


def test_nothing_is_joined_without_a_space(cuts):
    with pytest.raises(ConfigError, match="tokenizer has no space to part utterances with"):
        loader_of(cuts, join_utterances=2)


def test_sortagrad_begins_with_the_shortest(cuts):
    loader = loader_of(cuts, shuffle=True, sortagrad=True)
    first, second = ([max(batch.feature_lengths.tolist()) for batch in epoch(loader, n)] for n in (0, 1))
    assert sorted(first) == pytest.approx(first, rel=0.1)  # up to the jitter of the lengths
    assert sorted(second) != pytest.approx(second, rel=0.1)
    assert sorted(name for batch in epoch(loader) for name in batch.ids) == [cut.id for cut in cuts]


def test_little_is_padding(cuts):
    for options in ({}, {"shuffle": True}, {"shuffle": True, "speeds": (0.9, 1.0, 1.1)}):
        batches = epoch(loader_of(list(cuts) * 5, batch_seconds=10, **options))
        padded = sum(batch.features.shape[0] * batch.features.shape[1] for batch in batches)
        assert sum(int(batch.feature_lengths.sum()) for batch in batches) > 0.9 * padded


@pytest.fixture
def faulty(cuts, tmp_path, write_audio) -> Path:
    """A manifest of 44 utterances of which four cannot be used."""
    utterances = [
        Utterance("lost", write_audio(tmp_path / "lost.wav"), "a"),
        Utterance("broken", write_audio(tmp_path / "broken.flac"), "a"),
        Utterance("stray", write_audio(tmp_path / "stray.wav"), "abc"),
        Utterance("silent", write_audio(tmp_path / "silent.wav"), "a"),
    ]
    extra = build_cuts(utterances)[0]
    next(cut for cut in extra if cut.id == "silent").supervisions = []
    path = write_cuts([*cuts, *extra], tmp_path, "train")
    (tmp_path / "lost.wav").unlink()
    whole = (tmp_path / "broken.flac").read_bytes()
    (tmp_path / "broken.flac").write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_faulty_utterances_are_left_out_and_named(faulty, workers):
    loader = loader_of(load_cuts(faulty), workers=workers, shuffle=True)
    for number in range(2):
        seen = Counter(name for batch in epoch(loader, number) for name in batch.ids)
        assert seen == Counter(f"u{index:02d}" for index in range(40))
    assert sorted(loader.left_out) == ["broken", "lost", "silent", "stray"]
    assert "lost.wav" in loader.left_out["lost"]
    assert "broken.flac" in loader.left_out["broken"]
    assert "'c'" in loader.left_out["stray"]
    assert loader.left_out["silent"] == "it has no transcript"


def test_training_gets_its_number_of_batches_though_one_is_unreadable(faulty):
    loader = loader_of(load_cuts(faulty), max_batch_size=1, shuffle=True)
    batches = epoch(loader)
    assert len(batches) == len(loader) == 44
    assert sum(not batch.ids for batch in batches) == 4
    evaluation = epoch(loader_of(load_cuts(faulty), max_batch_size=1))
    assert Counter(name for batch in evaluation for name in batch.ids) == Counter(
        f"u{i:02d}" for i in range(40)
    )


def test_too_short_and_too_long_are_left_out(cuts):
    loader = loader_of(cuts, min_seconds=0.5, max_seconds=1.5)
    kept = [cut for cut in cuts if 0.5 <= cut.duration <= 1.5]
    assert loader.utterances == len(kept) < 40
    assert loader.seconds == pytest.approx(sum(cut.duration for cut in kept))
    assert len(loader.left_out) == 40 - len(kept)
    assert loader.left_out["u00"] == "its 0.30 s are not between 0.5 s and 1.5 s"
    with pytest.raises(ManifestError, match="none of the 40 utterances is between 5"):
        loader_of(cuts, min_seconds=5)
    with pytest.raises(ManifestError, match="no utterances"):
        loader_of([])


def test_select_crops_to_what_is_left(cuts):
    (batch,) = epoch(loader_of(cuts[:4], batch_seconds=100))
    shortest = batch.ids.index("u00")
    left = batch.select([shortest])
    assert left.ids == ["u00"]
    assert left.features.shape == (1, 31, 8)
    assert left.tokens.tolist() == [[1]]
    assert left.seconds == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(left.features[0], batch.features[shortest, :31])
    assert batch.select([]).ids == []
    assert batch.to("cpu").ids == batch.ids


def test_parts_and_channels_of_a_file(tmp_path):
    ramp = np.arange(32000) / 64000
    soundfile.write(tmp_path / "stereo.wav", np.stack([ramp, -ramp / 2], 1), 16000, subtype="FLOAT")
    both, part = build_cuts(
        [
            Utterance("both", tmp_path / "stereo.wav", "a"),
            Utterance("part", tmp_path / "stereo.wav", "a", start=1.0, duration=0.5),
        ]
    )[0]
    np.testing.assert_allclose(read_samples(both, 16000), ramp / 4, atol=1e-6)
    np.testing.assert_allclose(read_samples(part, 16000), ramp[16000:24000] / 4, atol=1e-6)
    second = replace(both, channel=1)
    np.testing.assert_allclose(read_samples(second, 16000), -ramp / 2, atol=1e-6)
    (tmp_path / "stereo.wav").unlink()
    for cut in (both, second):
        with pytest.raises(AudioError, match=r"stereo.wav"):
            read_samples(cut, 16000)


def test_the_loader_reaches_workers_that_do_not_fork(cuts):
    loader = loader_of(cuts)
    restored = pickle.loads(pickle.dumps(loader.dataset))
    item = next(iter(loader.batches))
    assert_equal([loader.dataset[item]], [restored[item]])


class _SilentCut:
    """As much of a cut as the sampler looks at."""

    def __init__(self, name: str, duration: float):
        self.id, self.duration = name, duration


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="there, who sent a signal cannot be told")
def test_signals_of_others_leave_the_workers_at_work(cuts):
    loader = loader_of(cuts, workers=2)
    batches = iter(loader)
    names = [*next(batches).ids, *next(batches).ids]  # one of each worker, so that both are at work
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    names += [name for batch in batches for name in batch.ids]
    assert sorted(names) == sorted(cut.id for cut in cuts)
    assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()  # the parent's own
        worker.join(10)
        assert worker.exitcode == 0
