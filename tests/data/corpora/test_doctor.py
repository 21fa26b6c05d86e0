"""The doctor on a corpus with every fault planted once among a thousand good utterances."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import train_arguments

from asr.cli.main import main
from asr.data import load_cuts
from asr.data.corpora.doctor import KINDS, Target, check, check_texts
from asr.data.corpora.doctor.texts import unusual_durations
from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import write_cuts
from asr.text import CharacterTokenizer
from asr.training.checks import quick_report, target_of

RATE = 16000
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Corpus:
    """Train and test with as many good utterances as asked for, and a place for each fault."""

    def __init__(self, folder: Path, good: int):
        self.folder = folder
        self.chance = random.Random(1)
        self.noise = np.random.default_rng(1)
        self.utterances: dict[str, list[Utterance]] = {"train": [], "test": []}
        for index in range(good):
            split = "test" if index % 10 == 0 else "train"
            self.add(split, f"good{index:04d}", speaker=f"{split}{index % 7}")

    def text(self, letters: int) -> str:
        return " ".join("".join(self.chance.choices(LETTERS, k=4)) for _ in range(letters // 5))

    def samples(self, seconds: float) -> np.ndarray:
        return np.clip(0.1 * self.noise.standard_normal(round(seconds * RATE)), -0.9, 0.9)

    def add(
        self, split: str, name: str, *, seconds: float = 0.0, speaker: str = "train0", **given
    ) -> Utterance:
        """Add an utterance of 0.5 to 1 s, fifteen letters a second unless given, and write its audio."""
        seconds = seconds or self.chance.uniform(0.5, 1.0)
        samples = given.get("samples", self.samples(seconds))
        path = self.folder / f"{name}{given.get('suffix', '.wav')}"
        soundfile.write(path, samples, given.get("rate", RATE))
        utterance = Utterance(
            given.get("id", name), path, given.get("text", self.text(int(15 * seconds))), speaker
        )
        self.utterances[split].append(utterance)
        return utterance

    def write(self) -> None:
        for split, utterances in self.utterances.items():
            cuts = [build_cuts([utterance])[0][0] for utterance in utterances]
            write_cuts(cuts, self.folder, split)


def plant(corpus: Corpus) -> dict[str, str]:
    """Plant each fault once; gives {id: kind}."""
    corpus.add("train", "lost")
    corpus.add("train", "cut", suffix=".flac", seconds=1.0)
    corpus.add("train", "mute", samples=np.zeros(RATE), text="some word here")
    corpus.add("train", "loud", samples=np.clip(20 * corpus.samples(1.0), -0.8, 0.8), text="some word too")
    corpus.add("train", "low", rate=8000, samples=corpus.samples(0.5), text="some word low", seconds=1.0)
    corpus.add("train", "longer", seconds=0.7)
    corpus.add("train", "another", id="good0001")
    corpus.add("train", "wordless", text="  ... ")
    corpus.add("train", "foreign", seconds=1.0, text="some łetters more")
    corpus.add("train", "crowded", seconds=0.6, text="much more than can be aligned")
    corpus.add("train", "slow", seconds=6.0, text="few")
    twin = corpus.samples(0.9)
    corpus.add("train", "twin", samples=twin, text="one of two")
    corpus.add("train", "twin2", samples=twin, text="the other")
    same = corpus.samples(0.8)
    corpus.add("train", "twice", samples=same, text="heard twice")
    corpus.add("test", "again", samples=same, text="under two texts", speaker="test0")
    corpus.add("train", "said", seconds=1.0, text="the same sentence")
    corpus.add("test", "resaid", seconds=1.0, text="The same sentence!", speaker="test0")
    corpus.add("train", "stranger", speaker="known to both")
    corpus.add("test", "friend", speaker="known to both")
    corpus.write()
    (corpus.folder / "lost.wav").unlink()
    whole = (corpus.folder / "cut.flac").read_bytes()
    (corpus.folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(corpus.folder / "longer.wav", corpus.samples(1.4), RATE)
    return {
        "lost": "unreadable",
        "cut": "truncated",
        "mute": "silent",
        "loud": "clipped",
        "low": "rate",
        "longer": "duration",
        "good0001": "duplicate",
        "wordless": "empty",
        "foreign": "letters",
        "crowded": "too long",
        "slow": "pace",
        "twin2": "repeated audio",
        "twice": "same audio",
        "said": "same sentence",
        "stranger": "same speaker",
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(folder with cuts_train and cuts_test, {id: kind})."""
    corpus = Corpus(tmp_path_factory.mktemp("planted"), 1000)
    return corpus.folder, plant(corpus)


def manifests(folder: Path) -> list[str]:
    return [str(folder / f"cuts_{name}.jsonl.gz") for name in ("train", "test")]


def test_every_planted_fault_is_named_and_only_those(planted, tmp_path, capsys):
    folder, faults = planted
    assert set(faults.values()) == set(KINDS) - {"mismatch"}  # which takes a model
    status = main(["check", *manifests(folder), "--json", str(tmp_path / "report.json"), "--jobs", "4"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert status == 1
    assert {item["id"]: item["kind"] for item in report["findings"]} == faults
    assert len(report["findings"]) == len(faults)
    assert report["counts"] == dict.fromkeys(set(KINDS) - {"mismatch"}, 1)
    assert report["utterances"] == 1019
    shown = capsys.readouterr().out
    for name, kind in faults.items():
        assert f"       1 {kind}: {KINDS[kind]}" in shown
        assert f" {name}: " in shown
    details = {item["id"]: item["detail"] for item in report["findings"]}
    assert "8000 Hz, others have 16000 Hz or more" in details["low"]
    assert "1.40 s, the manifest says 0.70 s" in details["longer"]
    assert "'ł'" in details["foreign"]
    assert details["twice"] == "its audio is that of test again"
    assert details["twin2"] == "its audio is that of twin, with another transcript"


def test_headers_alone_tell_what_needs_no_listening(planted, capsys):
    folder, faults = planted
    splits = {name: load_cuts(path) for name, path in zip(("train", "test"), manifests(folder), strict=True)}
    report = check(splits, target_of_defaults(), decode=False)
    deaf_to = {"truncated", "silent", "clipped", "same audio", "repeated audio"}
    assert {item.id: item.kind for item in report.findings} == {
        name: kind for name, kind in faults.items() if kind not in deaf_to
    }


def target_of_defaults(**choices) -> Target:
    from asr.training.config import TrainConfig

    config = TrainConfig()
    return target_of(config.features, config.model.front_end, "basic", choices.get("tokenizer"))


def test_parts_that_many_machines_read_give_the_same_report(planted, tmp_path, capsys):
    folder, _ = planted
    check_all = ["check", *manifests(folder)]
    parts = ["--parts", str(tmp_path / "parts")]
    main([*check_all, "--json", str(tmp_path / "whole.json")])
    for index in (1, 3):
        assert main([*check_all, *parts, "--shard", f"{index}/3"]) == 0
    capsys.readouterr()
    assert main([*check_all, *parts]) == 1
    assert "1 of 3 parts are missing" in capsys.readouterr().err
    assert main([*check_all, *parts, "--shard", "2/3"]) == 0
    (folder / "good0001.wav").rename(folder / "away.wav")  # what the parts hold is not read again
    main([*check_all, *parts, "--json", str(tmp_path / "joined.json")])
    (folder / "away.wav").rename(folder / "good0001.wav")
    assert (tmp_path / "joined.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    capsys.readouterr()
    assert main([*check_all[:2], *parts]) == 1
    assert "was written for other manifests" in capsys.readouterr().err
    assert main([*check_all, "--shard", "1/3"]) == 1
    assert "name it with --parts" in capsys.readouterr().err
    assert main([*check_all, *parts, "--shard", "1/3", "--json", "-"]) == 1
    assert "to the run without --shard" in capsys.readouterr().err


def test_fix_leaves_the_good(planted, tmp_path, capsys):
    folder, faults = planted
    assert main(["check", *manifests(folder), "--fix", str(tmp_path / "good")]) == 1
    left = {
        name: {cut.id for cut in load_cuts(tmp_path / "good" / f"cuts_{name}.jsonl.gz")}
        for name in ("train", "test")
    }
    meant = {"said", "stranger", "good0001"}  # of the doubled id the first stays
    assert left["train"] & faults.keys() == meant
    assert "twin" in left["train"]
    assert len(left["train"]) == 900 + 4 - 1
    assert len(left["test"]) == 103
    again = [str(tmp_path / "good" / f"cuts_{name}.jsonl.gz") for name in ("train", "test")]
    assert main(["check", *again]) == 0
    assert main(["check", *again, "--fix", str(tmp_path / "best"), "--remove-shared"]) == 0
    best = {cut.id for cut in load_cuts(tmp_path / "best" / "cuts_train.jsonl.gz")}
    assert left["train"] - best == {"said", "stranger"}
    assert main(["check", *again, "--ignore", "same sentence", "same speaker"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out
    one = ["check", again[0], "--fix", str(tmp_path / "one.jsonl.gz")]
    assert main(one) == 0
    assert len(load_cuts(tmp_path / "one.jsonl.gz")) == 903


def test_mistakes_at_the_command(planted, tmp_path, capsys):
    folder, _ = planted
    paths = manifests(folder)
    for arguments, message in (
        (["--fix", str(tmp_path / "x.jsonl.gz")], "is one file for 2 manifests; give a folder"),
        (["--fix", str(folder)], "would replace the manifest that is checked"),
        (
            ["--ignore", "silence"],
            "'silence' is no kind of finding (did you mean 'silent'?); there are unreadable",
        ),
        (["--json", str(tmp_path / "no" / "x.json")], "cannot write"),
        (["--model", str(tmp_path)], "is no bundle"),
    ):
        assert main(["check", *paths, "--headers-only", *arguments]) == 1
        assert message in capsys.readouterr().err
    for arguments, message in (
        (["one", "two", "--fix", "x.jsonl"], "is one file for 2 manifests"),
        (["one", "--json", "no/x.json"], "cannot write"),
        (["one", "one"], "one is given twice"),
    ):
        assert main(["check", *arguments]) == 1  # before anything is opened
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["check", *paths, "--jobs", "0"])
    assert "'0' was given; expected a whole number, 1 or more" in capsys.readouterr().err


def test_findings_on_standard_output(write_audio, tmp_path, capsys):
    audio = write_audio(tmp_path / "one.wav", 0.6)
    manifest = write_cuts(build_cuts([Utterance("one", audio, "one")])[0], tmp_path, "train")
    assert main(["check", str(manifest), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_fixed_manifests_of_one_name_do_not_replace_each_other(write_audio, tmp_path, capsys):
    paths = []
    for name in ("one", "two"):
        audio = write_audio(tmp_path / f"{name}.wav", 0.6)
        (tmp_path / name).mkdir()
        paths.append(str(write_cuts(build_cuts([Utterance(name, audio, name)])[0], tmp_path / name, "train")))
    assert main(["check", *paths, "--fix", str(tmp_path / "fixed")]) == 1
    assert "and another of this name to" in capsys.readouterr().err
    assert main(["check", *paths, "--fix", str(tmp_path / "two")]) == 1
    assert "would replace the manifest that is checked" in capsys.readouterr().err
    assert [cut.id for cut in load_cuts(paths[1])] == ["two"]


def test_a_length_the_header_does_not_tell_is_counted(tmp_path, capsys):
    path = tmp_path / "stream.flac"
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write(path, samples, 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples in STREAMINFO, 36 bits, as where a pipe was written
    content[22:26] = bytes(4)
    path.write_bytes(content)
    (cut,), problems = build_cuts([Utterance("stream", path, "a word")])
    assert not problems
    assert cut.duration == 1.0
    manifest = write_cuts([cut], tmp_path, "train")
    assert main(["check", str(manifest)]) == 0
    cut.recording.num_samples, cut.recording.duration, cut.duration = 160000, 10.0, 10.0  # as if guessed
    cut.supervisions[0].duration = 10.0
    manifest = write_cuts([cut], tmp_path, "train")
    assert main(["check", str(manifest)]) == 1
    assert "1.00 s are there, the manifest says 10.00 s" in capsys.readouterr().out


def test_pieces_of_words_need_fewer_frames_than_letters(write_audio, tmp_path, capsys):
    audio = [write_audio(tmp_path / f"{index}.wav", 0.6) for index in range(9)]
    text = "many words in a short time"
    write_cuts(build_cuts([Utterance(path.stem, path, text) for path in audio])[0], tmp_path, "train")
    config = tmp_path / "bpe.yaml"
    config.write_text("text: {tokenizer: bpe, vocab_size: 26}\n")
    arguments = ["check", str(tmp_path / "cuts_train.jsonl.gz"), "--headers-only"]
    assert main(arguments) == 1
    assert "9 too long" in capsys.readouterr().out
    assert main([*arguments, "--config", str(config)]) == 0


def test_training_goes_on_and_says_what_it_left_out(tmp_path, capsys):
    (tmp_path / "cuts").mkdir()
    corpus = Corpus(tmp_path / "cuts", 60)
    plant(corpus)
    test = tmp_path / "cuts" / "cuts_test.jsonl.gz"
    test.rename(test.with_name("cuts_dev.jsonl.gz"))
    arguments = train_arguments(
        tmp_path, tmp_path / "run", "--run.epochs=1", "--model.front_end.strides=[[2,2],[2,2]]"
    )
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert "best dev WER" in shown.out
    assert "check: 1 duplicate, 1 empty, 1 too long" in shown.err
    for name in ("lost", "cut", "crowded", "wordless"):
        assert f"left out {name}: " in shown.err
    assert "4 utterances were left out; all others were used" in shown.err


def test_real_corpora_are_well(shared_data, tmp_path):
    assert main(["prepare", "an4", str(shared_data / "an4"), "--output-dir", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path / "cuts_train.jsonl.gz"), str(tmp_path / "cuts_dev.jsonl.gz")]) == 0


def test_every_utterance_of_a_shared_speaker_is_told(write_audio, tmp_path):
    paths = [write_audio(tmp_path / f"{i}.wav", 0.5 + i / 10) for i in range(4)]
    cuts = build_cuts([Utterance(path.stem, path, "ab" * (1 + int(path.stem)), "anna") for path in paths])[0]
    report = check({"train": cuts[:2], "dev": cuts[2:3], "test": cuts[3:]})
    assert [(item.kind, item.split, item.id) for item in report.findings] == [
        ("same speaker", "train", "0"),
        ("same speaker", "train", "1"),
        ("same speaker", "dev", "2"),
    ]
    assert report.findings[2].detail == "speaker anna is that of test 3"


def test_rates_above_the_models_are_well(write_audio, tmp_path):
    rates = [48000] * 5 + [32000, 11025]
    paths = [write_audio(tmp_path / f"{i}.wav", 0.5, rate) for i, rate in enumerate(rates)]
    cuts = build_cuts([Utterance(path.stem, path, "abc") for path in paths])[0]
    assert [(item.kind, item.id) for item in check({"train": cuts}).findings] == [("rate", "6")]


def test_a_models_alphabet_decides(write_audio, tmp_path):
    cuts = build_cuts([Utterance(f"u{i}", write_audio(tmp_path / f"{i}.wav"), "abc") for i in range(3)])[0]
    target = target_of_defaults(tokenizer=CharacterTokenizer(["a", "b"]))
    assert [(item.kind, item.detail) for item in check_texts({"train": cuts}, target)] == [
        ("letters", "'c' in 'abc'")
    ] * 3
    assert check_texts({"train": cuts}) == []


def test_the_short_check_of_a_training_run(write_audio, tmp_path):
    utterances = [Utterance(f"u{i}", write_audio(tmp_path / f"{i}.wav"), "a word") for i in range(3)]
    cuts = build_cuts([*utterances, Utterance("none", utterances[0].audio, "?")])[0]
    splits = {"train": cuts[:-1], "dev": cuts[-1:]}
    assert [item.kind for item in check_texts(splits, target_of_defaults())].count("empty") == 1
    assert quick_report(splits, target_of_defaults()).startswith(
        "check: 1 empty, 2 same sentence; `asr check`"
    )
    assert quick_report({"train": cuts[1:2]}, target_of_defaults()) == ""


def test_exchanged_transcripts_are_told_by_their_pace():
    """Of 40 transcripts among 858 that belong to other audio some are far too long or short, and no others."""
    chance = random.Random(2)
    texts, durations = [], []
    for _ in range(858):  # spelled words, numbers and commands, as AN4's
        words = [
            "".join(chance.choices(LETTERS, k=chance.choice((1, 1, 4, 6))))
            for _ in range(chance.randint(1, 9))
        ]
        texts.append(" ".join(words))
        spoken = 0.6 + 0.33 * len(words) + 0.02 * sum(map(len, words))
        durations.append(spoken * chance.lognormvariate(0, 0.2))
    moved = chance.sample(range(858), 40)
    assert np.isnan(unusual_durations(np.array(durations), texts)).all()
    for place, other in zip(moved, [texts[place] for place in [*moved[1:], moved[0]]], strict=True):
        texts[place] = other
    told = np.flatnonzero(~np.isnan(unusual_durations(np.array(durations), texts)))
    assert len(told) >= 3
    assert set(told) <= set(moved)


def test_one_file_twice_is_told_by_its_name(write_audio, tmp_path):
    audio = write_audio(tmp_path / "a.wav", 1.0)
    parts = [("one", None), ("two", None), ("three", 0.0), ("four", 0.5)]
    utterances = [Utterance(name, audio, name, start=start, duration=start and 0.25) for name, start in parts]
    utterances[2] = Utterance("three", audio, "three", start=0.0, duration=0.25)
    cuts = build_cuts(utterances)[0]
    for decode in (True, False):
        report = check({"train": cuts}, decode=decode)
        assert [(item.kind, item.id, item.detail) for item in report.findings] == [
            ("repeated audio", "two", "its audio is that of one, with another transcript")
        ]
