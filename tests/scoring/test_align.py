import jiwer
import numpy as np
import pytest
from sclite import sclite_counts, write_trn

from asr.scoring.align import align, align_kinds, count_errors

LETTERS = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}


def words(texts):
    return [text.split() for text in texts]


def reference_costs(reference, hypothesis):
    """Fill sclite's cost matrix cell by cell and trace it back, as its definition says."""
    cost = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    step = {}
    for r in range(len(reference) + 1):
        for h in range(len(hypothesis) + 1):
            if r == h == 0:
                continue
            ways = []
            if r and h:
                same = reference[r - 1] == hypothesis[h - 1]
                ways.append((cost[r - 1, h - 1] + (0 if same else 4), 0, "=" if same else "S"))
            if h:
                ways.append((cost[r, h - 1] + 3, 1, "I"))
            if r:
                ways.append((cost[r - 1, h] + 3, 2, "D"))
            cost[r, h], _, step[r, h] = min(ways)
    kinds, r, h = "", len(reference), len(hypothesis)
    while r or h:
        kinds = step[r, h] + kinds
        r, h = r - (step[r, h] != "I"), h - (step[r, h] != "D")
    return kinds


@pytest.mark.parametrize("texts", ["ties", "sentences"])
def test_counts_and_alignments_are_jiwers(texts, request):
    references, hypotheses = request.getfixturevalue(texts)
    expected = jiwer.process_words(references, hypotheses)
    counts = count_errors(words(references), words(hypotheses)).sum(axis=0)
    assert counts[:3].tolist() == [expected.substitutions, expected.deletions, expected.insertions]
    kinds = [
        "".join(
            LETTERS[chunk.type]
            * max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
        )
        for chunks in expected.alignments
    ]
    assert align_kinds(words(references), words(hypotheses)) == kinds


@pytest.mark.parametrize("texts", ["ties", "sentences"])
def test_character_counts_are_jiwers(texts, request):
    references, hypotheses = request.getfixturevalue(texts)
    expected = jiwer.process_characters(references, hypotheses)
    counts = count_errors(references, hypotheses).sum(axis=0)
    assert counts[:3].tolist() == [expected.substitutions, expected.deletions, expected.insertions]


def test_sclite_alignment_follows_its_definition(ties):
    references, hypotheses = (words(texts[:400]) for texts in ties)
    kinds = align_kinds(references, hypotheses, "sclite")
    assert kinds == [reference_costs(*pair) for pair in zip(references, hypotheses, strict=True)]


@pytest.mark.parametrize("texts", ["ties", "sentences"])
def test_sclite_counts_are_sclites(texts, request, tmp_path):
    references, hypotheses = request.getfixturevalue(texts)
    expected = sclite_counts(
        write_trn(tmp_path / "ref.trn", references), write_trn(tmp_path / "hyp.trn", hypotheses)
    )
    counts = count_errors(words(references), words(hypotheses), "sclite")
    assert tuple(counts.sum(axis=0).tolist()) == expected


def test_total_of_errors_of_sentences_is_the_same_for_both(sentences):
    jiwers, sclites = (
        count_errors(*map(words, sentences), aligner)[:, :3].sum() for aligner in ("jiwer", "sclite")
    )
    assert jiwers == sclites


def test_sclite_prefers_six_errors_that_cost_less():
    reference, hypothesis = "abcxy", "xypqr"
    assert count_errors([reference], [hypothesis])[0, :3].sum() == 5
    assert count_errors([reference], [hypothesis], "sclite").tolist() == [[0, 3, 3, 5]]


@pytest.mark.parametrize("aligner", ["jiwer", "sclite"])
@pytest.mark.parametrize(
    ("reference", "hypothesis", "kinds"),
    [
        ("", "", ""),
        ("", "a b", "II"),
        ("a b", "", "DD"),
        ("a", "a", "="),
        ("a", "b", "S"),
        ("naïve Straße 東京 🙂", "naïve Strasse 東京 🙂", "=S=="),
        ("a b c", "a c", "=D="),
    ],
)
def test_edge_cases(reference, hypothesis, kinds, aligner):
    assert align_kinds([reference.split()], [hypothesis.split()], aligner) == [kinds]


def test_columns_hold_the_words():
    columns = align(["go", "to", "bed"], ["go", "two", "bed", "now"])
    assert columns == [("=", "go", "go"), ("S", "to", "two"), ("=", "bed", "bed"), ("I", None, "now")]


def test_more_distinct_words_than_a_byte_or_two_hold():
    many = [f"w{i}" for i in range(70_000)]
    counts = count_errors([many], [[*many[:300], "new", *many[301:]]])
    assert counts.tolist() == [[1, 0, 0, 70_000]]
