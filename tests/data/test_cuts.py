"""Cuts: what is written comes back, splits share no speaker, and broken files are named."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr.data import read_samples
from asr.data.corpora.hold_out import hold_out
from asr.data.corpora.prepare import summary
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import AlignmentItem, Cut, file_of, load_cuts, plain, speaker_of, text_of, write_cuts
from asr.errors import ManifestError


@pytest.fixture
def cuts(tmp_path, write_audio) -> list[Cut]:
    """Eight speakers, four of each gender, three utterances each."""
    audio = write_audio(tmp_path / "audio.wav", 2.0)
    utterances = [
        Utterance(
            id=f"s{speaker}-{number}",
            audio=audio,
            text="one two",
            speaker=f"s{speaker}",
            gender="fm"[speaker % 2],
            start=0.5 * number,
            duration=0.5,
        )
        for speaker in range(8)
        for number in range(3)
    ]
    return build_cuts(utterances)[0]


def test_written_cuts_come_back(cuts, tmp_path):
    path = write_cuts(cuts, tmp_path / "out", "train")
    assert path.name == "cuts_train.jsonl.gz"
    assert load_cuts(path) == cuts
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_broken_audio_is_named_and_the_rest_kept(tmp_path, write_audio):
    good = write_audio(tmp_path / "good.wav")
    text = tmp_path / "text.wav"
    text.write_text("this is no audio")
    empty = tmp_path / "empty.wav"
    empty.touch()
    header_only = write_audio(tmp_path / "header.wav", 0.0)
    cuts, problems = build_cuts(
        [
            Utterance("good", good, "one"),
            Utterance("good", good, "again"),
            Utterance("lost", tmp_path / "lost.wav", "one"),
            Utterance("text", text, "one"),
            Utterance("empty", empty, "one"),
            Utterance("header", header_only, "one"),
        ]
    )
    assert [cut.id for cut in cuts] == ["good"]
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "empty",
        "good",
        "header",
        "lost",
        "text",
    ]
    assert all(".wav" in problem for problem in problems if not problem.startswith("good"))
    assert not any("\n" in problem for problem in problems)


def test_stereo_is_one_utterance_of_both_channels(tmp_path, write_audio):
    (cut,), _ = build_cuts([Utterance("a", write_audio(tmp_path / "a.wav", channels=2), "one")])
    assert cut.channel == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_held_out_speakers_are_in_one_split_only(cuts, seed):
    train, dev, done = hold_out(cuts, fraction=0.25, seed=seed)
    assert {cut.id for cut in train} | {cut.id for cut in dev} == {cut.id for cut in cuts}
    assert len(train) + len(dev) == len(cuts)
    held_out = {speaker_of(cut) for cut in dev}
    assert not held_out & {speaker_of(cut) for cut in train}
    assert len(held_out) == 2
    assert {cut.supervisions[0].gender for cut in dev} == {"f", "m"}
    assert f"2 of 8 speakers ({', '.join(sorted(held_out))})" in done


def test_the_draw_depends_on_the_seed_and_on_nothing_else(cuts):
    draws = [{cut.id for cut in hold_out(cuts, fraction=0.25, seed=seed)[1]} for seed in range(6)]
    shuffled = cuts[::-1]
    assert draws == [{cut.id for cut in hold_out(shuffled, fraction=0.25, seed=seed)[1]} for seed in range(6)]
    assert len({frozenset(draw) for draw in draws}) > 1


def test_named_speakers_are_held_out(cuts):
    _, dev, _ = hold_out(cuts, speakers=["s3", "s5"])
    assert {speaker_of(cut) for cut in dev} == {"s3", "s5"}
    with pytest.raises(ManifestError, match="no speaker nobody to hold out; the corpus has s0, s1"):
        hold_out(cuts, speakers=["nobody"])
    with pytest.raises(ManifestError, match="cannot hold out"):
        hold_out(cuts, speakers=[f"s{number}" for number in range(8)])


def test_utterances_are_held_out_where_speakers_are_unknown_or_too_few(cuts):
    single = [cut for cut in cuts if speaker_of(cut) == "s1"]
    _, dev, done = hold_out(single)
    assert len(dev) == 1
    assert done == "held out for dev: 1 of 3 utterances, for too few speakers (1)"
    for cut in cuts:
        cut.supervisions[0].speaker = None
    _, dev, done = hold_out(cuts)
    assert len(dev) == 2
    assert "for the speakers are unknown" in done


def test_utterances_without_a_speaker_stay_in_train(cuts):
    cuts[0].supervisions[0].speaker = None
    train, dev, done = hold_out(cuts, fraction=0.25)
    assert not {speaker_of(cut) for cut in train} & {speaker_of(cut) for cut in dev}
    assert cuts[0] in train
    assert done.endswith("; 1 utterances without a speaker stay in train")


def test_a_folder_that_is_a_file_is_named(cuts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match=r"cannot write .*cuts_train.*: File exists"):
        write_cuts(cuts, tmp_path / "file", "train")


def test_a_speaker_who_makes_half_of_the_corpus_is_not_drawn(tmp_path, write_audio):
    audio = write_audio(tmp_path / "a.wav", 1.0)
    counts = {"most": 40, **{f"s{number}": 2 for number in range(9)}}
    cuts, _ = build_cuts(
        Utterance(f"{name}-{index}", audio, "one", name)
        for name, count in counts.items()
        for index in range(count)
    )
    for seed in range(20):
        assert "most" not in {speaker_of(cut) for cut in hold_out(cuts, seed=seed)[1]}


def test_manifests_that_are_wrong(cuts, tmp_path):
    with pytest.raises(ManifestError, match="there is no manifest"):
        load_cuts(tmp_path / "lost.jsonl.gz")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(ManifestError, match=r"empty.jsonl is empty"):
        load_cuts(empty)
    nemo = tmp_path / "nemo.jsonl"
    nemo.write_text('{"audio_filepath": "a.wav", "text": "x"}\n')
    with pytest.raises(ManifestError, match=r"line 1 of .*nemo.jsonl is not a cut"):
        load_cuts(nemo)
    whole = write_cuts(cuts, tmp_path, "whole")
    plain = gzip.decompress(whole.read_bytes())
    garbled = tmp_path / "garbled.jsonl"
    garbled.write_bytes(plain.replace(b'"MonoCut"', b'"MonoCat"', 3)[:-1000])
    with pytest.raises(ManifestError, match=r"line 1 of .*garbled.jsonl is not a cut"):
        load_cuts(garbled)
    truncated = tmp_path / "truncated.jsonl.gz"
    truncated.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ManifestError, match=r"truncated.jsonl.gz is damaged"):
        load_cuts(truncated)
    no_gzip = tmp_path / "plain.jsonl.gz"
    no_gzip.write_bytes(plain)
    with pytest.raises(ManifestError, match=r"plain.jsonl.gz is damaged"):
        load_cuts(no_gzip)


def test_manifest_of_which_all_files_are_lost(cuts, tmp_path):
    path = write_cuts(cuts, tmp_path, "train")
    (tmp_path / "audio.wav").unlink()
    with pytest.raises(ManifestError, match=r"none of the 1 audio files that .*audio.wav"):
        load_cuts(path)


def test_summary_says_what_there_is(cuts):
    lines = summary({"train": cuts}).splitlines()
    assert lines[1].split() == ["train", "24", "8", "0.00", "48", "0.50", "s", "0.50", "s"]
    assert lines[2] == "alphabet of train: 5 symbols and space: enotw"


def test_text_of_several_supervisions(cuts):
    first, second, *_ = cuts
    first.supervisions += second.supervisions
    assert text_of(first) == "one two one two"
    first.supervisions = []
    assert text_of(first) is None
    assert speaker_of(first) is None


def test_whatever_stops_the_writing_is_told(cuts, tmp_path):
    with pytest.raises(ManifestError, match=r"cannot write .*: File name too long"):
        write_cuts(cuts, tmp_path / "out", "x" * 300)
    with pytest.raises(ManifestError, match=r"cannot write .*: No such file or directory"):
        write_cuts(cuts, Path("/proc/nowhere"), "train")


def test_the_alphabet_holds_no_line_ends(cuts):
    for cut in cuts:
        cut.supervisions[0].text = "a\nb c\u2028d"
    assert summary({"train": cuts}).endswith("4 symbols and space: abcd")


def test_a_manifest_works_from_any_folder_and_beside_its_audio(tmp_path, write_audio, monkeypatch):
    audio = write_audio(tmp_path / "corpus" / "a.wav")
    monkeypatch.chdir(tmp_path)
    (cut,), _ = build_cuts([Utterance("a", Path("corpus/a.wav"), "one")])
    path = write_cuts([cut], tmp_path / "cuts", "train")
    cut.recording.sources[0].source = "corpus/a.wav"
    relative = write_cuts([cut], tmp_path / "cuts", "dev")
    beside = tmp_path / "corpus" / "cuts.jsonl"
    beside.write_text(json.dumps(cut.to_dict()).replace("corpus/a.wav", "a.wav"))
    here = tmp_path / "corpus" / "here.jsonl"
    here.write_text(json.dumps(cut.to_dict()))
    mixed = tmp_path / "corpus" / "mixed.jsonl"
    mixed.write_text(json.dumps(cut.to_lhotse().pad(2.0).to_dict()).replace("corpus/a.wav", "a.wav"))
    assert file_of(load_cuts(here)[0]) == str(audio)  # from the current folder
    monkeypatch.chdir("/")
    for manifest in (path, relative, beside):
        (found,) = load_cuts(manifest)
        assert file_of(found) == str(audio)
        assert len(read_samples(found, 16000)) == 16000
    assert len(read_samples(load_cuts(mixed)[0], 16000)) == 32000
    with pytest.raises(ManifestError, match="none of the 1 audio files"):
        load_cuts(here)


def test_lhotse_and_we_write_the_same(cuts, tmp_path):
    from lhotse import CutSet

    cuts[0].supervisions[0].alignment = {
        "word": [AlignmentItem("one", 0.1, 0.2), AlignmentItem("two", 0.3, 0.1, 0.5)]
    }
    cuts[1].custom = {"loudness": -20.5}
    path = write_cuts(cuts, tmp_path, "ours")
    theirs = CutSet.from_file(path)
    theirs.to_file(tmp_path / "theirs.jsonl")
    assert load_cuts(tmp_path / "theirs.jsonl") == load_cuts(path) == cuts
    first = next(iter(theirs))
    assert (
        first.supervisions[0].alignment["word"][1].end
        == cuts[0].supervisions[0].alignment["word"][1].end
        == 0.4
    )
    assert plain(first) == cuts[0]
    assert plain(first.resample(8000)) is not cuts[0]


def test_cuts_are_read_without_lhotse_and_torch(cuts, tmp_path):
    path = write_cuts(cuts, tmp_path, "train")
    code = (
        "import sys; sys.modules['lhotse'] = sys.modules['torch'] = None;"
        "from asr.data import load_cuts, open_corpus, read_samples, text_of;"
        "cut = open_corpus(sys.argv[1])[0]; print(text_of(cut), len(read_samples(cut, 16000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("one two 8000\n", "")


def test_what_takes_lhotse_says_so(cuts, tmp_path, monkeypatch):
    path = tmp_path / "mixed.jsonl"
    path.write_text(json.dumps(cuts[0].to_lhotse().pad(2.0).to_dict()))
    monkeypatch.setitem(sys.modules, "lhotse.cut", None)
    with pytest.raises(ManifestError, match=r"takes lhotse to read; pip install 'recurrent-asr\[train\]'"):
        load_cuts(path)
