"""Corpora in their published layouts: generated, and real where they lie beside the checkout."""

import shutil

import pytest

from asr.cli.main import main
from asr.data.corpora.catalogue import CORPORA
from asr.data.corpora.prepare import prepare, prepare_manifest
from asr.data.cuts import load_cuts, speaker_of
from asr.errors import ManifestError


def test_an4_official_layout(an4, tmp_path):
    preparation = prepare("an4", an4, tmp_path / "out")
    assert preparation.problems == []
    assert list(preparation.splits) == ["train", "dev", "test"]
    loaded = {
        name: list(load_cuts(tmp_path / "out" / f"cuts_{name}.jsonl.gz")) for name in preparation.splits
    }
    assert {name: len(cuts) for name, cuts in loaded.items()} == {"train": 33, "dev": 3, "test": 9}
    assert {speaker_of(cut) for cut in loaded["test"]} == {"fta", "mtb", "mtc"}
    assert {cut.supervisions[0].text for cuts in loaded.values() for cut in cuts} == {"YES NO"}
    segment = loaded["test"][0].supervisions[0]
    assert (segment.id, segment.gender, segment.language) == ("an0-fta-b", "F", "English")


def test_an4_in_the_folder_above(an4, tmp_path):
    assert len(prepare("an4", an4.parent, tmp_path / "out").splits["test"]) == 9


def test_an4_without_its_test_folder(an4, tmp_path):
    shutil.rmtree(an4 / "wav" / "an4test_clstk")
    (an4 / "etc" / "an4_test.fileids").unlink()
    preparation = prepare("an4", an4, tmp_path / "out")
    assert list(preparation.splits) == ["train", "dev"]
    assert preparation.problems == []
    assert "no test split" in preparation.notes[0]
    assert "no etc/an4_test.fileids, no wav/an4test_clstk" in preparation.notes[0]
    assert not (tmp_path / "out" / "cuts_test.jsonl.gz").exists()


def test_an4_with_a_lost_and_a_broken_file(an4, tmp_path, capsys):
    folder = an4 / "wav" / "an4_clstk" / "fs00"
    (folder / "an0-fs00-b.sph").unlink()
    (folder / "an1-fs00-b.sph").write_bytes(b"NIST_1A\n   1024\n")
    transcripts = an4 / "etc" / "an4_train.transcription"
    transcripts.write_text(transcripts.read_text().replace("<s> YES NO </s> (an2-fs00-b)\n", ""))
    status = main(["prepare", "an4", str(an4), "--output-dir", str(tmp_path / "out")])
    shown = capsys.readouterr()
    assert status == 1
    assert "3 skipped:" in shown.err
    for name in ("an0-fs00-b", "an1-fs00-b", "an2-fs00-b"):
        assert name in shown.err
    kept = [cut for name in ("train", "dev") for cut in load_cuts(tmp_path / "out" / f"cuts_{name}.jsonl.gz")]
    assert len(kept) == 33


def test_not_an4(an4, tmp_path):
    with pytest.raises(ManifestError, match="is not AN4: there is no etc/an4_train"):
        prepare("an4", tmp_path, tmp_path / "out")
    shutil.rmtree(an4 / "wav" / "an4_clstk")
    with pytest.raises(ManifestError, match="not the whole of AN4: it has no wav/an4_clstk"):
        prepare("an4", an4, tmp_path / "out")
    with pytest.raises(ManifestError, match="there is no folder"):
        prepare("an4", tmp_path / "lost", tmp_path / "out")
    with pytest.raises(
        ManifestError, match=r"there is no corpus 'an5' \(did you mean 'an4'\?\); `asr prepare --list`"
    ):
        prepare("an5", tmp_path, tmp_path / "out")


def test_the_whole_of_an4(shared_data, tmp_path):
    splits = prepare("an4", shared_data / "an4", tmp_path / "first").splits
    speakers = {name: {speaker_of(cut) for cut in cuts} for name, cuts in splits.items()}
    assert len(splits["train"]) + len(splits["dev"]) == 948
    assert len(speakers["train"] | speakers["dev"]) == 74
    assert not speakers["train"] & speakers["dev"]
    assert len(speakers["dev"]) == 7
    assert sum(cut.duration for cuts in splits.values() for cut in cuts) / 3600 == pytest.approx(
        0.71, abs=0.01
    )
    again = prepare("an4", shared_data / "an4", tmp_path / "second").splits
    assert {name: list(cuts) for name, cuts in again.items()} == {
        name: list(cuts) for name, cuts in splits.items()
    }
    other = prepare("an4", shared_data / "an4", tmp_path / "third", seed=1).splits
    assert {speaker_of(cut) for cut in other["dev"]} != speakers["dev"]


def test_librispeech_layout(tmp_path, write_audio, capsys):
    root = tmp_path / "LibriSpeech"
    for part, speakers in (("train-clean-5", "12"), ("dev-clean-2", "3"), ("test-clean", "45")):
        for speaker in speakers:
            folder = root / part / speaker / "100"
            names = [f"{speaker}-100-{number:04d}" for number in range(3)]
            for name in names:
                write_audio(folder / f"{name}.flac")
            (folder / f"{speaker}-100.trans.txt").write_text(
                "".join(f"{name} SOME WORDS\n" for name in names)
            )
    (root / "train-clean-5" / "1" / "100" / "1-100-0001.flac").unlink()
    (root / "SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET |MINUTES| NAME\n4    | F | test-clean | 8.03 | A B\n5    | M | test-clean | 8 | |C\n"
    )
    preparation = prepare("librispeech", root, tmp_path / "out")
    assert {name: len(cuts) for name, cuts in preparation.splits.items()} == {
        "train": 5,
        "dev": 3,
        "test": 6,
        "train-clean-5": 5,
        "dev-clean-2": 3,
        "test-clean": 6,
    }
    assert len(preparation.problems) == 1
    assert "1-100-0001.flac" in preparation.problems[0]
    (cut, *_) = load_cuts(tmp_path / "out" / "cuts_test.jsonl.gz")
    assert (cut.id, speaker_of(cut), cut.supervisions[0].text) == ("4-100-0000", "4", "SOME WORDS")
    genders = {speaker_of(cut): cut.supervisions[0].gender for cut in preparation.splits["test-clean"]}
    assert genders == {"4": "F", "5": "M"}
    assert preparation.splits["dev"][0].supervisions[0].gender is None


def test_held_out_utterances_are_in_no_part_of_train(tmp_path, write_audio, capsys):
    folder = tmp_path / "train-clean-100" / "1" / "2"
    for number in range(4):
        write_audio(folder / f"1-2-{number:04d}.flac")
    (folder / "1-2.trans.txt").write_text("".join(f"1-2-{number:04d} WORDS\n" for number in range(4)))
    splits = prepare("librispeech", tmp_path, tmp_path / "out", dev_fraction=0.25).splits
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 3, "dev": 1}
    parts = prepare("librispeech", tmp_path, tmp_path / "all", dev_fraction=0).splits
    assert {name: len(cuts) for name, cuts in parts.items()} == {"train": 4, "train-clean-100": 4}


def test_librispeech_real(shared_data, tmp_path, capsys):
    cuts = prepare("librispeech", shared_data / "LibriSpeech", tmp_path).splits["test-clean"]
    assert len(cuts) == 4
    assert {speaker_of(cut) for cut in cuts} == {"1089"}


def test_not_librispeech(tmp_path, capsys):
    with pytest.raises(
        ManifestError, match="cannot be read as the layout of lhotse's prepare_librispeech: Could not find"
    ):
        prepare("librispeech", tmp_path, tmp_path / "out")


def test_yesno_holds_out_utterances(tmp_path, write_audio):
    for number in range(60):
        write_audio(tmp_path / "waves_yesno" / f"{'_'.join(f'{number:08b}')}.wav")
    preparation = prepare("yesno", tmp_path / "waves_yesno", tmp_path / "out")
    assert {name: len(cuts) for name, cuts in preparation.splits.items()} == {
        "train": 27,
        "dev": 3,
        "test": 30,
    }


def test_speechocean762(shared_data, tmp_path):
    preparation = prepare("speechocean762", shared_data / "speechocean762", tmp_path)
    assert len(preparation.splits["train"]) + len(preparation.splits["dev"]) == 2500
    ages = {
        cut.supervisions[0].custom["age"]
        for name in ("train", "dev")
        for cut in load_cuts(tmp_path / f"cuts_{name}.jsonl.gz")
    }
    assert {6, 37} <= ages <= set(range(6, 38))
    assert "no test split" in preparation.notes[0]


def test_every_corpus_is_described():
    for name, corpus in CORPORA.items():
        assert name == name.lower()
        assert corpus.about
        assert corpus.hours
        assert corpus.license


def test_ones_own_folder_gives_train_and_dev_in_one_command(tmp_path, write_audio, capsys):
    for speaker in ("anna", "bert", "carl", "dora", "emil", "fred", "gina", "hans", "ida", "jan"):
        for number in range(2):
            path = write_audio(tmp_path / "mine" / speaker / f"{number}.wav")
            path.with_suffix(".txt").write_text("Grüß Gott")
    arguments = ["prepare", "manifest", str(tmp_path / "mine"), "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--language", "German"]) == 0
    shown = capsys.readouterr().out
    assert "held out for dev: 1 of 10 speakers" in shown
    train, dev = (list(load_cuts(tmp_path / "out" / f"cuts_{name}.jsonl.gz")) for name in ("train", "dev"))
    assert (len(train), len(dev)) == (18, 2)
    assert {(cut.supervisions[0].language, cut.supervisions[0].text) for cut in dev} == {
        ("German", "Grüß Gott")
    }
    assert main([*arguments, "--dev-speakers", "ida", "jan"]) == 0
    assert "speakers (ida, jan)" in capsys.readouterr().out
    assert main([*arguments, "--split", "test"]) == 0
    assert len(load_cuts(tmp_path / "out" / "cuts_test.jsonl.gz")) == 20


def test_nothing_is_held_out_on_request(tmp_path, write_audio):
    write_audio(tmp_path / "1.wav").with_suffix(".txt").write_text("one")
    assert list(prepare_manifest(tmp_path, tmp_path / "out", dev_fraction=0).splits) == ["train"]
    with pytest.raises(ManifestError, match="cannot hold out development utterances"):
        prepare_manifest(tmp_path, tmp_path / "out")
    with pytest.raises(ManifestError, match=r"cannot hold out speakers: .* gives the splits test"):
        prepare_manifest(tmp_path, tmp_path / "out", split="test", dev_speakers=["anna"])


def test_what_was_left_out_is_told_where_nothing_can_be_held_out(tmp_path, write_audio):
    for name in ("1.wav", "2.wav"):
        write_audio(tmp_path / name)
    (tmp_path / "1.txt").write_text("one")
    with pytest.raises(
        ManifestError, match=r"1 of 1 would be held out.*\n1 left out, the first: 2: there is no trans"
    ):
        prepare_manifest(tmp_path, tmp_path / "out")
    with pytest.raises(ManifestError, match="no speaker anna to hold out; the speakers are unknown"):
        prepare_manifest(tmp_path, tmp_path / "out", dev_speakers=["anna"])


def test_folder_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "1.wav").write_text("no audio")
    (tmp_path / "1.txt").write_text("one")
    with pytest.raises(
        ManifestError, match=r"holds no readable utterance\n1 left out, the first: 1: .*1.wav"
    ):
        prepare_manifest(tmp_path, tmp_path / "out")


def test_command_line_says_what_is_missing(tmp_path, capsys):
    assert main(["prepare", "--list"]) == 0
    assert "librispeech" in capsys.readouterr().out
    for arguments in (["prepare"], ["prepare", "an4"], ["prepare", "manifest", "x"]):
        assert main(arguments) == 1
        assert "-o DIR missing; expected `asr prepare CORPUS FOLDER -o DIR`" in capsys.readouterr().err
    assert main(["prepare", "manifest", str(tmp_path / "lost"), "--output-dir", "y"]) == 1
    assert "there is no" in capsys.readouterr().err
    for option, value, message in (
        ("--dev-fraction", "1.5", "is not a share"),
        ("--dev-fraction", "x", "'x' is not a share"),
        ("--jobs", "x", "'x' was given; expected a whole number, 1 or more"),
        ("--split", "../x", "'../x' cannot be part of a file name"),
    ):
        with pytest.raises(SystemExit):
            main(["prepare", "an4", option, value])
        assert message in capsys.readouterr().err


def test_options_that_do_not_apply_are_refused(tmp_path, capsys):
    output = ["--output-dir", str(tmp_path)]
    for arguments, message in (
        (["manifest", "x", "--download"], "--download is not an option of `asr prepare manifest`"),
        (["manifest", "x", "--parts", "dev"], "--parts is not an option of `asr prepare manifest`"),
        (["an4", "x", "--split", "dev"], "--split is not an option of `asr prepare an4`"),
    ):
        assert main(["prepare", *arguments, *output]) == 1
        assert message in capsys.readouterr().err
