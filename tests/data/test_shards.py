"""Shards: what was written comes back, each utterance once an epoch, from a disk or a server, and nothing stops it."""

import functools
import gc
import shutil
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import loaders
import numpy as np
import pytest
import torch
from helpers import make_corpus, train_arguments
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet

from asr.cli.main import main
from asr.data import BatchLimits, BatchOrder
from asr.data.corpora.doctor import check
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import LANES, text_of
from asr.data.reading import read_samples
from asr.data.sampling import ShardSampler
from asr.data.shards import Shards, is_sharded, write_shards
from asr.errors import AudioError, ManifestError
from asr.features import SpecAugmentConfig
from asr.features.spec_augment import SpecAugment


@pytest.fixture(scope="module")
def cuts(tmp_path_factory, write_audio):
    folder = tmp_path_factory.mktemp("audio")
    utterances = [
        Utterance(
            f"u{i:02d}",
            write_audio(folder / f"{i}.wav", 0.3 + 0.07 * (i % 23)),
            "ab"[: 1 + i % 2],
            f"s{i % 3}",
        )
        for i in range(40)
    ]
    return build_cuts(utterances)[0]


@pytest.fixture(scope="module")
def folder(cuts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shar_train"
    assert write_shards(cuts, folder, shard_size=6) == []
    return folder


loader_of = functools.partial(loaders.loader_of, shuffle=True)


def epoch(loader, number: int = 0):
    loader.set_epoch(number)
    return list(loader)


def test_transcripts_hold_any_character(tmp_path, write_audio):
    text = "one\u2028two\x85three"
    cuts, _ = build_cuts([Utterance("u", write_audio(tmp_path / "u.wav"), text)])
    assert write_shards(cuts, tmp_path / "shar") == []
    assert [text_of(cut) for cut in Shards(tmp_path / "shar")] == [text]


def test_audio_that_flac_cannot_hold_is_told(tmp_path, write_audio):
    paths = (write_audio(tmp_path / "u.wav"), write_audio(tmp_path / "fast.wav", 0.1, sample_rate=768000))
    cuts, _ = build_cuts([Utterance(path.stem, path, "one") for path in paths])
    (problem,) = write_shards(cuts, tmp_path / "shar")
    assert problem.startswith("fast: ")
    assert [cut.id for cut in Shards(tmp_path / "shar")] == ["u"]


def test_what_was_written_comes_back(cuts, folder):
    shards = Shards(folder)
    assert (len(shards), len(shards.durations)) == (40, 7)
    assert shards.seconds == pytest.approx(sum(cut.duration for cut in cuts), abs=0.01)
    before = {cut.id: cut for cut in cuts}
    assert {cut.id for cut in shards} == set(before)
    assert [cut.id for cut in shards] != sorted(before)
    for index in (0, 17, 39, -1):
        cut = shards[index]
        np.testing.assert_array_equal(read_samples(cut, 16000), read_samples(before[cut.id], 16000))
        assert text_of(cut) == text_of(before[cut.id])
        assert cut.supervisions[0].speaker == before[cut.id].supervisions[0].speaker
    assert [cut.id for cut in shards[3:5]] == [shards[3].id, shards[4].id]
    assert len(list(shards.some(15, seed=1))) == 15
    with pytest.raises(IndexError):
        shards[40]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_lhotse_reads_them_too(cuts, folder):
    found = {cut.id: cut.load_audio().shape[1] for cut in CutSet.from_shar(in_dir=folder)}
    gc.collect()  # lhotse leaves its files open
    assert found == {cut.id: cut.num_samples for cut in cuts}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_batches_with_any_number_of_workers(folder, cuts, workers):
    options = {"speeds": (0.9, 1.1), "spec_augment": SpecAugment(SpecAugmentConfig(frequency_width=3))}
    alone, shared = (
        loader_of(Shards(folder), **options),
        loader_of(Shards(folder), workers=workers, **options),
    )
    for number in range(2):
        first, second = epoch(alone, number), epoch(shared, number)
        assert len(first) == len(alone)
        assert [batch.ids for batch in first] == [batch.ids for batch in second]
        assert all(
            torch.equal(one.features, other.features) for one, other in zip(first, second, strict=True)
        )
        assert Counter(name for batch in first for name in batch.ids) == Counter(cut.id for cut in cuts)
    assert [batch.ids for batch in epoch(alone, 0)] != [batch.ids for batch in first]


def test_a_resumed_epoch_goes_on_from_its_batch(folder):
    whole, resumed = epoch(loader_of(Shards(folder)), 1), loader_of(Shards(folder), workers=1)
    resumed.set_epoch(1, first=3)
    rest = list(resumed)
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[3:]]
    assert all(torch.equal(one.features, other.features) for one, other in zip(rest, whole[3:], strict=True))


@settings(max_examples=50, deadline=None)
@given(
    durations=st.lists(st.lists(st.floats(0.1, 30), min_size=1, max_size=30), min_size=4, max_size=40),
    world_size=st.integers(1, 4),
    batch_seconds=st.floats(1, 200),
    shuffle=st.booleans(),
    seed=st.integers(0, 100),
)
def test_processes_share_an_epoch_without_overlap_or_loss(
    durations, world_size, batch_seconds, shuffle, seed
):
    sampler = ShardSampler(
        [np.array(shard, np.float32) for shard in durations],
        BatchLimits(batch_seconds=batch_seconds, max_batch_size=20),
        BatchOrder(speeds=(0.9, 1.1), shuffle=shuffle, seed=seed),
    )
    everything = {(shard, place) for shard, those in enumerate(durations) for place in range(len(those))}
    with pytest.MonkeyPatch.context() as patch:
        for number in range(2):
            sampler.set_epoch(number)
            seen: list[tuple[int, int]] = []
            counts = set()
            try:
                for rank in range(world_size):
                    patch.setattr("asr.data.sampling.processes", lambda rank=rank: (rank, world_size))
                    batches = [batch for _, batch in sampler]
                    counts.add(len(batches))
                    assert len(batches) == len(sampler)
                    for batch in batches:
                        assert len({item.shard for item, _ in batch}) == 1
                        longest = max(item.duration / speed for item, speed in batch)
                        assert len(batch) == 1 or len(batch) * longest <= batch_seconds * (1 + 1e-6)
                        seen += [(item.shard, item.position) for item, _ in batch]
            except ManifestError:  # too few shards: batches of one cannot be halved
                assert world_size > 1
                return
            assert len(counts) == 1
            assert len(seen) == len(set(seen)) == len(everything)


def test_little_is_padding(tmp_path, write_audio):
    lengths = np.random.default_rng(0).uniform(0.2, 2.0, 400)
    utterances = [
        Utterance(f"u{i:03d}", write_audio(tmp_path / f"{i}.wav", seconds), "a")
        for i, seconds in enumerate(lengths)
    ]
    write_shards(build_cuts(utterances)[0], tmp_path / "shards", shard_size=20)
    batches = epoch(loader_of(Shards(tmp_path / "shards"), batch_seconds=10, speeds=(0.9, 1.0, 1.1)))
    padded = sum(batch.features.shape[0] * batch.features.shape[1] for batch in batches)
    assert sum(int(batch.feature_lengths.sum()) for batch in batches) > 0.95 * padded


def test_few_shards_are_in_memory_at_a_time(cuts, tmp_path):
    write_shards(list(cuts), tmp_path / "x", shard_size=1)
    shards = Shards(tmp_path / "x")
    assert len(epoch(loader_of(shards))) == 40
    assert len(shards._opened) == LANES


def test_short_and_long_utterances_are_left_out(folder):
    loader = loader_of(Shards(folder), min_seconds=0.5, max_seconds=1.5)
    assert loader.utterances + len(loader.left_out) == 40
    assert all("are not between 0.5 s and 1.5 s" in reason for reason in loader.left_out.values())
    assert sum(len(batch.ids) for batch in epoch(loader)) == loader.utterances < 40
    with pytest.raises(ManifestError, match="none of the 40 utterances"):
        loader_of(Shards(folder), min_seconds=9)


def test_a_lost_shard_is_named_and_the_rest_is_trained_on(folder, cuts, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "recording.000002.tar").unlink()
    content = (copy / "recording.000004.tar").read_bytes()
    (copy / "recording.000004.tar").write_bytes(content[: len(content) // 2])
    loader = loader_of(Shards(copy))
    # Training counts on as many batches as announced, and gets others again in place of those.
    assert len({name for batch in epoch(loader) for name in batch.ids}) == 28
    assert len(loader.left_out) == 12
    assert "shard 000002" in loader.left_out["000002-000000"]
    with pytest.raises(AudioError, match="shard 000004"):
        Shards(copy).open(4)


def test_mistakes(folder, cuts, tmp_path):
    with pytest.raises(ManifestError, match="already holds shards"):
        write_shards(cuts, folder)
    with pytest.raises(ManifestError, match=r"cannot read .*cuts.json: No such file"):
        Shards(tmp_path)
    (tmp_path / "cuts.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"cuts.json is damaged: KeyError"):
        Shards(tmp_path)
    assert is_sharded("https://store/shar_train")
    assert is_sharded(str(folder))
    assert not is_sharded("cuts_train.jsonl.gz")
    assert not is_sharded("nowhere")


@pytest.fixture
def server(folder):
    """The shards behind a server that refuses every fifth request."""
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            requests.append(self.path)
            if len(requests) % 5 == 0:
                self.send_error(503)
            else:
                super().do_GET()

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder.parent)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/shar_train"
    http.shutdown()
    http.server_close()


def test_shards_are_streamed_from_a_url(server, folder, monkeypatch):
    monkeypatch.setattr("asr.data.fetch.time.sleep", lambda seconds: None)
    near, far = epoch(loader_of(Shards(folder))), epoch(loader_of(Shards(server + "/")))
    assert [batch.ids for batch in near] == [batch.ids for batch in far]
    assert all(torch.equal(one.features, other.features) for one, other in zip(near, far, strict=True))


def test_shards_are_read_from_an_object_store(folder):
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/shar_train", recursive=True)
    near, far = epoch(loader_of(Shards(folder))), epoch(loader_of(Shards("memory://bucket/shar_train")))
    assert [batch.ids for batch in near] == [batch.ids for batch in far]
    assert all(torch.equal(one.features, other.features) for one, other in zip(near, far, strict=True))
    with pytest.raises(
        ManifestError, match=r"there is no memory://bucket/lost/cuts.json; expected the address"
    ):
        Shards("memory://bucket/lost")
    with pytest.raises(ManifestError, match=r"cannot read shop://x/cuts.json: Protocol not known: shop"):
        Shards("shop://x")
    with pytest.raises(ManifestError, match=r"a package is missing: Install ocifs"):
        Shards("oci://x")


def test_the_doctor_listens_to_shards(cuts, folder, tmp_path, capsys):
    copy = tmp_path / "shar_test"
    shutil.copytree(folder, copy)
    assert main(["check", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("40 utterances")
    assert "nothing wrong was found" in shown
    (copy / "recording.000004.tar").write_bytes((copy / "recording.000004.tar").read_bytes()[:2000])
    report = check({"train": Shards(folder), "test": Shards(copy)})
    # The sentences and the speakers are few, so that they are shared; the audio is but for a shard's six.
    lost = [item for item in report.findings if item.kind == "unreadable"]
    assert [item.split for item in lost] == ["test"] * 6
    assert "shard 000004" in lost[0].detail
    assert report.counts["same audio"] == 34
    assert "unreadable" not in check({"test": Shards(copy)}, decode=False).counts
    parts = ["check", str(copy), "--parts", str(tmp_path / "parts")]
    assert [main([*parts, "--shard", f"{index}/2"]) for index in (1, 2)] == [0, 0]
    capsys.readouterr()
    assert main(parts) == 1
    assert "6 unreadable" in capsys.readouterr().out
    assert main(["check", str(folder), "--fix", str(tmp_path / "x.jsonl.gz")]) == 1
    assert "--fix writes manifests, not shards" in capsys.readouterr().err


def test_prepare_writes_shards_and_training_streams_them(tmp_path, capsys):
    manifest = make_corpus(tmp_path / "audio", utterances=40)
    arguments = [
        "prepare",
        "manifest",
        str(manifest),
        "--output-dir",
        str(tmp_path / "cuts"),
        "--dev-fraction",
        "0.2",
    ]
    assert main([*arguments, "--shar"]) == 0
    assert f"wrote {tmp_path}/cuts/shar_train" in capsys.readouterr().out
    sharded = [f"--data.train={tmp_path}/cuts/shar_train", "--features.normalize=global", "--run.epochs=2"]
    assert main(train_arguments(tmp_path, tmp_path / "run", *sharded)) == 0
    assert "best dev WER" in capsys.readouterr().out
    two = f"--data.train=[{tmp_path}/cuts/shar_train,{tmp_path}/cuts/shar_dev]"
    assert main(train_arguments(tmp_path, tmp_path / "other", two)) == 1
    assert "names shards" in capsys.readouterr().err
    assert main([*arguments, "--shar"]) == 1
    assert "already holds shards" in capsys.readouterr().err
