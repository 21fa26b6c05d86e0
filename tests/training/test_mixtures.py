"""Several corpora with weights, and a curriculum by duration: which utterances an epoch has."""

from collections import Counter

import pytest
from helpers import train_arguments

from asr.cli import main
from asr.data.sampling import BatchLimits, BatchOrder, BatchSampler
from asr.errors import ManifestError
from asr.training.checkpoint import read_checkpoint
from asr.training.data import Corpus, corpus_names, with_different_ids


class Utterance:
    """A cut as far as a sampler looks at it."""

    def __init__(self, name, duration):
        self.id, self.duration = name, duration


def utterances(count=40, prefix="u"):
    return [Utterance(f"{prefix}{i:02}", 1.0 + i / 10) for i in range(count)]


def sampler_of(cuts, weights=None, **order):
    limits = BatchLimits(batch_seconds=12.0, accumulate=2)
    return BatchSampler(cuts, limits, BatchOrder(shuffle=True, seed=3, **order), weights)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return [[cut.id for cut, _ in drawn] for _, drawn in batches]


def counts(sampler, epoch):
    return Counter(name for batch in epoch_of(sampler, epoch) for name in batch)


def test_whole_weights_repeat_every_utterance():
    cuts = [*utterances(10, "a"), *utterances(10, "b")]
    found = counts(sampler_of(cuts, [1.0] * 10 + [3.0] * 10), 0)
    assert {name: found[name] for name in found} == {c.id: 3 if c.id[0] == "b" else 1 for c in cuts}


def test_parts_of_weights_are_drawn_anew_in_each_epoch():
    sampler = sampler_of(utterances(), [0.5] * 40)
    epochs = [set(counts(sampler, epoch)) for epoch in range(12)]
    assert len(set(map(frozenset, epochs))) == 12
    assert 12 * 40 * 0.35 < sum(map(len, epochs)) < 12 * 40 * 0.65  # 240 on average, 11 the deviation
    assert set().union(*epochs) == {cut.id for cut in utterances()}


def test_an_epoch_is_the_same_however_it_is_come_to():
    """What exact resume rests on."""
    first, second = (
        sampler_of(utterances(), [1.5] * 40, curriculum_epochs=3, curriculum_seconds=2.0) for _ in "ab"
    )
    for epoch in range(4):
        later = epoch_of(first, epoch)
    assert epoch_of(second, 3) == later


def test_weights_of_one_change_nothing():
    plain, weighted = sampler_of(utterances()), sampler_of(utterances(), [1.0] * 40)
    assert [epoch_of(plain, epoch) for epoch in (0, 1)] == [epoch_of(weighted, epoch) for epoch in (0, 1)]


def test_a_curriculum_begins_with_the_short_ones():
    sampler = sampler_of(utterances(), curriculum_epochs=2, curriculum_seconds=2.0)
    durations = {cut.id: cut.duration for cut in utterances()}
    longest = [max(durations[name] for name in counts(sampler, epoch)) for epoch in range(3)]
    assert longest == pytest.approx([2.0, 3.4, 4.9], abs=0.06)  # 4.9 is the longest of all
    assert sampler.seconds_of(0) == pytest.approx(sum(d for d in durations.values() if d <= 2.0))
    assert sampler.seconds_of(2) == sampler.seconds
    with pytest.raises(ManifestError, match=r"raise data\.curriculum_seconds above 1\.00 s"):
        sampler_of(utterances(), curriculum_epochs=2, curriculum_seconds=0.5)


def test_corpora_are_named_by_what_differs():
    assert corpus_names(["x/an4/cuts_dev.jsonl.gz", "y/yesno/cuts_dev.jsonl.gz"]) == ["an4", "yesno"]
    assert corpus_names(["an4/cuts_dev.jsonl.gz", "an4/cuts_test.jsonl.gz"]) == ["dev", "test"]
    assert corpus_names(["dev.jsonl"]) == ["dev"]


def test_equal_ids_of_two_corpora_are_told_apart():
    corpora = with_different_ids([Corpus("a", utterances(2)), Corpus("b", utterances(3))])
    assert [[cut.id for cut in corpus.cuts] for corpus in corpora] == [
        ["u00", "u01"],
        ["b/u00", "b/u01", "u02"],
    ]


def test_two_corpora_train_together_and_each_has_its_wer(corpus, tmp_path, capsys):
    """The dev set given twice: each half has the WER of the whole. Resuming comes to the same weights."""
    (tmp_path / "second").mkdir()
    dev = corpus / "cuts" / "cuts_dev.jsonl.gz"
    (tmp_path / "second" / dev.name).symlink_to(dev)
    train = corpus / "cuts" / "cuts_train.jsonl.gz"
    more = (
        f"--data.dev=[{dev}, {tmp_path}/second/{dev.name}]",
        f"--data.train=[{train}, {train}]",
        "--data.train_weights=[0.5, 1.5]",
        "--data.curriculum_epochs=1",
        "--data.curriculum_seconds=1.5",
        "--run.deterministic=true",
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(train_arguments(corpus, whole, *more, "--run.epochs=2", "--run.max_minutes=0.0001")) == 0
    assert main(train_arguments(corpus, whole, *more, "--run.epochs=2", "--resume")) == 0
    assert main(train_arguments(corpus, parts, *more, "--run.epochs=2")) == 0
    printed = capsys.readouterr().out
    assert "an epoch of train: 1 0.0" in printed
    assert "(cuts " in printed
    states = [read_checkpoint(run / "checkpoints") for run in (whole, parts)]
    assert all((states[0]["model"][name] == states[1]["model"][name]).all() for name in states[0]["model"])
    for numbers in states[1]["history"]:
        assert numbers["dev_wer/cuts"] == numbers["dev_wer/second"] == numbers["dev_wer"]
    assert "Dev WER of each corpus" in (parts / "report.html").read_text("utf-8")
