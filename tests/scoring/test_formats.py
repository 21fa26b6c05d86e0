import gzip
import json

import pytest
from sclite import sclite_counts

from asr.errors import TextError
from asr.outputs import render
from asr.scoring import score
from asr.scoring.formats import read_transcripts
from asr.scoring.pairing import pair
from asr.transcript import Transcript, Word

TEXTS = {"u1": "hello there", "u2": "", "u3": "naïve 東京"}

FILES = {
    "kaldi": "u1 hello there\nu2\nu3\tnaïve 東京\n",
    "trn": ";; a comment\nhello there (u1)\n(u2)\nnaïve 東京 (u3)\n",
    "json": "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in TEXTS.items()),
}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_forms_are_recognized_by_their_content(form, packed, tmp_path):
    path = tmp_path / "transcripts"
    content = FILES[form].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    found = read_transcripts(path)
    assert (found.form, found.texts) == (form, TEXTS)


@pytest.mark.parametrize("content", ["u1 5 5 5 1 2 3\nu2 5 5 6 1 2\n", "u1 7 3 2 1\nu2 7 3 2 1\n"])
def test_spoken_numerals_are_no_times(content, tmp_path):
    path = tmp_path / "transcripts"
    path.write_text(content)
    found = read_transcripts(path)
    assert found.form == "kaldi"
    assert " ".join(found.texts.values()) == " ".join(line[3:] for line in content.splitlines())


@pytest.mark.parametrize(("name", "form"), [("silence.ctm", "auto"), ("silence.txt", "lines")])
def test_what_heard_nothing_may_be_empty(name, form, tmp_path):
    path = tmp_path / name
    path.write_text("")
    found = read_transcripts(path, "hypothesis", form)
    assert (found.texts, found.timed) == ({}, ())
    with pytest.raises(TextError, match="is empty"):
        read_transcripts(path, "reference", form)


@pytest.mark.parametrize("side", ["reference", "hypothesis"])
def test_nemos_manifest_holds_both_sides(side, tmp_path):
    path = tmp_path / "manifest.json"
    row = {
        "audio_filepath": "wav/u1.wav",
        "duration": 2.5,
        "text": "said",
        "pred_text": "heard",
        "speaker": "ann",
    }
    path.write_text(json.dumps(row) + "\n")
    found = read_transcripts(path, side)
    assert found.texts == {"u1": "said" if side == "reference" else "heard"}
    assert found.fields == {"u1": {"duration": 2.5, "speaker": "ann"}}


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"path": f"{who}/1.wav", "text": who}) + "\n" for who in ("ann", "bob"))
    )
    assert read_transcripts(path).texts == {"ann/1": "ann", "bob/1": "bob"}


def test_whispers_json_is_named_after_its_file(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(
        json.dumps({"text": " Hello there.", "segments": [{"start": 0, "end": 1}], "language": "en"})
    )
    assert read_transcripts(path).texts == {"talk": " Hello there."}
    assert read_transcripts(tmp_path).texts == {"talk": " Hello there."}


def test_cuts_of_lhotse(tmp_path):
    path = tmp_path / "cuts.jsonl.gz"
    cut = {
        "id": "c1",
        "duration": 2.0,
        "supervisions": [
            {"id": "s1", "text": "hello", "speaker": "ann", "gender": "f", "custom": {"snr": 10}}
        ],
    }
    path.write_bytes(gzip.compress(json.dumps(cut).encode()))
    found = read_transcripts(path, "reference")
    assert found.texts == {"c1": "hello"}
    assert found.fields == {"c1": {"snr": 10, "speaker": "ann", "gender": "f", "duration": 2.0}}


def test_a_report_is_read_back(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(score(["a b"], ["a c"], ids=["u1"]).to_json())
    assert read_transcripts(path, "reference").texts == {"u1": "a b"}
    assert read_transcripts(path, "hypothesis").texts == {"u1": "a c"}


def test_kaldis_folder_tells_speakers(tmp_path):
    (tmp_path / "text").write_text("u1 hello\nu2 there\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\n")
    (tmp_path / "spk2gender").write_text("ann f\nbob m\n")
    found = read_transcripts(tmp_path)
    assert found.fields == {"u1": {"speaker": "ann", "gender": "f"}, "u2": {"speaker": "bob", "gender": "m"}}
    (tmp_path / "spk2age").write_text("ann 31\n")
    (tmp_path / "utt2dur").write_text("u1 1.25\nu2 2\n")
    (tmp_path / "spk2utt").write_text("ann u1\nbob u2\n")
    assert read_transcripts(tmp_path).fields == {
        "u1": {"speaker": "ann", "gender": "f", "age": 31, "duration": 1.25},
        "u2": {"speaker": "bob", "gender": "m", "duration": 2},
    }


def test_librispeechs_folder(shared_data):
    found = read_transcripts(shared_data / "LibriSpeech/test-clean", "reference")
    assert len(found.texts) == 4
    assert found.texts["1089-134686-0000"].startswith("HE HOPED THERE WOULD BE STEW FOR DINNER")


def test_folder_of_texts(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "u1.txt").write_text("hello\nthere\n")
    (tmp_path / "u2.txt").write_text("")
    assert read_transcripts(tmp_path).texts == {"u1": "hello there", "u2": ""}


def test_lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("hello there\n\nhello there\n")
    assert read_transcripts(path, form="lines").texts == {"1": "hello there", "2": "", "3": "hello there"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.trn", "hello there\n", r"line 1: expected `words \(id\)`; found 'hello there'"),
        ("a.trn", "{ uh / um no (u1)\n", "line 1: alternatives are not closed"),
        ("a.ctm", "talk 1 zero 1 word\n", "line 1: expected `file channel start duration word"),
        ("a.ctm", "talk 1 * * <ALT_BEGIN>\n", r"line 1: alternatives \(<ALT_BEGIN>\) are not closed"),
        ("a.ctm", "talk 1 * * <ALT>\n", "line 1: alternatives are not begun"),
        ("a.stm", "talk 1 ann 0 word\n", "line 1: expected `file channel speaker start end"),
        ("a.json", '{"id": "u1", "text": "a"}\n{"id": \n', "line 2 is not JSON"),
        (
            "a.json",
            '{"id": "u1", "words": "a"}\n',
            "expected one of hypothesis.*in all of them are: id, words",
        ),
        ("a.json", "[1, 2]", "expected JSON objects"),
        ("a.csv", "hello,there\n", "line names no columns that are known; expected hypothesis"),
        ("a.csv", "id,text\nu1,a,b\n", "line 2 has 3 columns; expected 2"),
        ("a.TextGrid", "anything", "is a Praat TextGrid, which is not read here"),
        ("a.txt", "SPEAKER talk 1 0.0 1.0 <NA> <NA> ann\n", "is RTTM"),
        ("a.txt", "u1 a\nu1 b\n", "'u1' stands there twice.*--format lines"),
    ],
)
def test_malformed_files_are_refused_by_name_and_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TextError, match=message) as caught:
        read_transcripts(path)
    assert str(path) in str(caught.value)


def test_only_line_ends_end_lines(tmp_path):
    said = "one\u2028two\x85three\x0cfour"
    (tmp_path / "a.txt").write_text(f"{said}\r\nfive\r\n", "utf-8", newline="")
    assert read_transcripts(tmp_path / "a.txt", form="lines").texts == {"1": said, "2": "five"}
    rows = [json.dumps({"id": name, "text": said}, ensure_ascii=False) for name in "ab"]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), "utf-8")
    assert read_transcripts(tmp_path / "a.jsonl").texts == {"a": said, "b": said}


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(TextError, match="no such file"):
        read_transcripts(tmp_path / "absent")
    with pytest.raises(TextError, match=r"no .txt or .json files"):
        read_transcripts(tmp_path)
    (tmp_path / "latin").write_bytes(b"u1 hello\nu2 na\xefve\n")
    with pytest.raises(TextError, match="line 2 is not UTF-8"):
        read_transcripts(tmp_path / "latin")
    packed = gzip.compress(b"u1 hello " * 100)
    for broken in (packed[:30], packed[:12] + b"\xff" * 9 + packed[21:]):
        (tmp_path / "broken.gz").write_bytes(broken)
        with pytest.raises(TextError, match="cannot be read"):
            read_transcripts(tmp_path / "broken.gz")


STM = """\
;; talk
talk 1 ann 0.00 2.00 <o,f0,female> hello there
talk 1 bob 2.00 4.00 how are you
talk 1 nobody 4.00 5.00 ignore_time_segment_in_scoring
talk 1 ann 5.50 7.00 fine thanks
"""
CTM = """\
talk 1 0.10 0.40 hello 0.9
talk 1 1.80 0.30 dear 0.5
talk 1 2.10 0.40 how 0.9
talk 1 1.95 0.30 their 0.9
talk 1 4.10 0.40 noise 0.9
talk 1 5.10 0.30 find 0.9
talk 1 9.00 0.30 thanks 0.9
"""


@pytest.fixture
def timed(tmp_path):
    for name, content in (("ref.stm", STM), ("hyp.ctm", CTM)):
        (tmp_path / name).write_text(content)
    return tmp_path / "ref.stm", tmp_path / "hyp.ctm"


def test_words_fall_into_segments_by_their_middles(timed):
    pairs = pair(read_transcripts(timed[0], "reference"), read_transcripts(timed[1]))
    assert pairs.ids == ("talk-1-0.00-2.00", "talk-1-2.00-4.00", "talk-1-5.50-7.00")
    assert pairs.references == ("hello there", "how are you", "fine thanks")
    assert pairs.hypotheses == ("hello dear", "their how", "find thanks")
    assert pairs.fields == {"speaker": ("ann", "bob", "ann")}


def test_timed_words_are_counted_as_sclite_counts_them(timed):
    stm, ctm = timed
    ctm.write_text("".join(sorted(CTM.splitlines(keepends=True), key=lambda line: float(line.split()[2]))))
    stm.write_text(
        STM.replace("ignore_time", "IGNORE_TIME").replace("_segment_in_scoring", "_SEGMENT_IN_SCORING")
    )
    pairs = pair(read_transcripts(stm, "reference"), read_transcripts(ctm))
    counts = score(pairs.references, pairs.hypotheses, aligner="sclite").word_errors
    expected = sclite_counts(stm, ctm, forms=("stm", "ctm"))
    assert (counts.substitutions, counts.deletions, counts.insertions, counts.length) == expected


def test_segments_against_whole_recordings(timed, tmp_path):
    (tmp_path / "hyp.txt").write_text("talk hello there how are you\n")
    pairs = pair(read_transcripts(timed[0], "reference"), read_transcripts(tmp_path / "hyp.txt"))
    assert pairs.references == ("hello there how are you fine thanks",)


def test_channels_are_recordings_of_their_own(tmp_path):
    (tmp_path / "ref.stm").write_text("call A ann 0 1 hi\ncall B bob 0 1 hello\n")
    (tmp_path / "hyp.ctm").write_text("call A 0 1 hi\ncall B 0.5 1 hallo\n")
    pairs = pair(read_transcripts(tmp_path / "ref.stm", "reference"), read_transcripts(tmp_path / "hyp.ctm"))
    assert pairs.hypotheses == ("hi", "hallo")
    (tmp_path / "hyp.txt").write_text("call-A hi\ncall-B hello\n")
    pairs = pair(read_transcripts(tmp_path / "ref.stm", "reference"), read_transcripts(tmp_path / "hyp.txt"))
    assert pairs.references == ("hi", "hello")


def test_mismatched_ids(tmp_path):
    (tmp_path / "ref.txt").write_text("u1 a\nu2 b\n")
    (tmp_path / "hyp.txt").write_text("u2 b\nu3 c\n")
    sides = read_transcripts(tmp_path / "ref.txt", "reference"), read_transcripts(tmp_path / "hyp.txt")
    with pytest.raises(TextError, match=r"without a hypothesis: u1; without a reference: u3"):
        pair(*sides)
    empty, skip = pair(*sides, mismatched="empty"), pair(*sides, mismatched="skip")
    assert (empty.ids, empty.hypotheses) == (("u1", "u2"), ("", "b"))
    assert (skip.ids, skip.hypotheses) == (("u2",), ("b",))


def test_nothing_in_common(tmp_path):
    (tmp_path / "ref.txt").write_text("hello world\nhow are you\n")
    (tmp_path / "hyp.txt").write_text("yellow world\nwho are you\n")
    sides = read_transcripts(tmp_path / "ref.txt", "reference"), read_transcripts(tmp_path / "hyp.txt")
    with pytest.raises(TextError, match="--format lines"):
        pair(*sides)
    with pytest.raises(TextError, match="no id in common"):
        pair(*sides, mismatched="skip")


def test_a_recording_that_nobody_heard(timed):
    stm, ctm = timed
    stm.write_text(STM + "other 1 ann 0 1 hi\n")
    ctm.write_text(CTM + "third 1 0 1 hi\n")
    sides = read_transcripts(stm, "reference"), read_transcripts(ctm)
    with pytest.raises(
        TextError, match=r"without a hypothesis: other-1-0.00-1.00.*without a reference: third channel 1"
    ):
        pair(*sides)
    assert pair(*sides, mismatched="empty").references[0] == "hi"


def sides(tmp_path, reference, hypothesis, names=("ref.txt", "hyp.txt")):
    for name, content in zip(names, (reference, hypothesis), strict=True):
        (tmp_path / name).write_text(content, "utf-8")
    first, second = (tmp_path / name for name in names)
    return read_transcripts(first, "reference"), read_transcripts(second)


SENTENCES = "hello there world\nthe cat sat on the mat\nyes it is\n"


def test_first_words_that_may_be_ids_are_not_guessed(tmp_path):
    hypothesis = SENTENCES.replace("there world", "their world")
    with pytest.raises(TextError, match="two ways") as caught:
        pair(*sides(tmp_path, SENTENCES, hypothesis))
    assert "ids such as 'hello' (3 ids in common), or as plain lines such as 'hello there world'" in str(
        caught.value
    )
    assert "--format kaldi or --format lines" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("the cat sat\nthe dog ran\n", "lines"),
        ("yes\nno\nstop\n", "lines"),
        ("今天天气很好\n明天见\n", "lines"),
        ("hello there\nhow are you\n", "kaldi or lines"),
        ("5 apples\n7 pears\n", "kaldi or lines"),
        ("1 9 5\n2 7\n4 4\n", "kaldi or lines"),
        ("mother-in-law came\nx-ray done\n", "kaldi or lines"),
        ("1 hello\n2 there\n", "kaldi"),
        ("0001 hello\n0002 there\n", "kaldi"),
        ("1089-134686-0000 HELLO\n1089-134686-0001 THERE\n", "kaldi"),
        ("id,text\nu1,hello\n", "table"),
        ("path\tsentence\nu1.wav\thello\n", "table"),
        ("audio_file|text\nu1.wav|hello\n", "table"),
        ("1\n00:00:00,000 --> 00:00:01,000\nhello\n", "srt"),
        ("WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n", "vtt"),
    ],
)
def test_what_a_file_is_taken_for(content, form, tmp_path):
    path = tmp_path / "transcripts"
    path.write_text(content, "utf-8")
    assert read_transcripts(path).form == form


def test_the_other_side_decides_between_ids_and_words(tmp_path):
    pairs = pair(
        *sides(
            tmp_path, "hello there (ann)\nyes (bob)\n", "ann hello dear\nbob yes\n", ("ref.trn", "hyp.txt")
        )
    )
    assert (pairs.ids, pairs.hypotheses) == (("ann", "bob"), ("hello dear", "yes"))
    assert pairs.sides[1].form == "kaldi"
    pairs = pair(*sides(tmp_path, "the cat sat\nthe dog ran\n", "the cat sat\na dog ran\n"))
    assert pairs.hypotheses == ("the cat sat", "a dog ran")
    with pytest.raises(TextError, match=r"two ways.*no id in common"):
        pair(*sides(tmp_path, "hello there (u1)\n", "hello there\n", ("ref.trn", "hyp.txt")))


def test_kaldis_own_files_hold_ids_whatever_they_look_like(tmp_path):
    (tmp_path / "text").write_text("ann hello there\nbob yes\n")
    assert read_transcripts(tmp_path / "text").texts == {"ann": "hello there", "bob": "yes"}
    (tmp_path / "hyp.txt").write_text("ann hello there\nbob yes\n")
    (tmp_path / "utt2spk").write_text("ann a\nbob b\n")
    found = read_transcripts(tmp_path / "hyp.txt")
    assert (found.form, found.fields["bob"]) == ("kaldi", {"speaker": "b"})


def test_plain_lines_of_other_numbers_are_refused(tmp_path):
    with pytest.raises(TextError, match=r"ref.txt has 3 lines and .*hyp.txt has 2 lines"):
        pair(*sides(tmp_path, "the cat\nthe dog\nthe end\n", "the cat\nthe dog\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,speaker_name,text\nu1,ann,"hello, there"\nu2,bob,\n'),
        ("a.tsv", "client_id\tpath\tsentence\nann\tclips/u1.mp3\thello, there\nbob\tclips/u2.mp3\t\n"),
        ("a.csv", "audio_file|text|speaker_name\nwav/u1.wav|hello, there|ann\nwav/u2.wav||bob\n"),
        ("a.csv", 'wav_filename,speaker,transcript\nu1.wav,ann,"hello, there"\nu2.wav,bob,\n'),
    ],
)
def test_tables(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    found = read_transcripts(tmp_path / name, "reference")
    assert found.texts == {"u1": "hello, there", "u2": ""}
    assert found.fields == {"u1": {"speaker": "ann"}, "u2": {"speaker": "bob"}}


@pytest.mark.parametrize("form", ["txt", "json", "srt", "vtt", "tsv", "ctm", "trn"])
def test_what_transcribing_writes_is_read(form, tmp_path):
    words = (Word("hello", 0.0, 0.5, 0.9), Word("there", 0.5, 1.0, 0.8))
    transcript = Transcript("hello there", words, 1.0)
    (tmp_path / f"talk.{form}").write_text(render(transcript, form, "talk"))
    reference = tmp_path / "ref.trn"
    reference.write_text("hello there (talk)\n")
    hypothesis = tmp_path / "folder" if form == "txt" else tmp_path / f"talk.{form}"
    if form == "txt":
        hypothesis.mkdir()
        (tmp_path / "talk.txt").rename(hypothesis / "talk.txt")
    pairs = pair(read_transcripts(reference, "reference"), read_transcripts(hypothesis))
    assert pairs.hypotheses == ("hello there",)


def test_subtitles(tmp_path):
    (tmp_path / "talk.vtt").write_text(
        "WEBVTT\n\nNOTE a note\n\n00:00.000 --> 00:01.500\n<v Ann>hello\n&lt;there&gt;\n\n"
        "x\n00:00:01.500 --> 00:00:02.000 align:left\nyou\n"
    )
    first, second = read_transcripts(tmp_path / "talk.vtt").timed
    assert (first.text, first.speaker, first.start, first.end) == ("hello <there>", "Ann", 0.0, 1.5)
    assert (second.text, second.end) == ("you", 2.0)
    (tmp_path / "talk.srt").write_text(
        "1\n00:00:00,000 --> 00:00:00,500\n<u>go</u> there\n\n2\n00:00:00,500 --> 00:00:01,000\ngo <u>there</u>\n\n"
    )
    assert [cue.text for cue in read_transcripts(tmp_path / "talk.srt").timed] == ["go there"]


def test_a_folder_of_subtitles_or_of_words_with_times(tmp_path):
    for form, content in (("srt", "1\n00:00:00,000 --> 00:00:01,000\nhello\n"), ("ctm", "a 1 0 1 hello\n")):
        folder = tmp_path / form
        folder.mkdir()
        (folder / f"a.{form}").write_text(content)
        pairs = pair(
            *sides(tmp_path, "hello (a)\n", "hello (a)\n", ("ref.trn", "hyp.trn"))[:1],
            read_transcripts(folder),
        )
        assert pairs.hypotheses == ("hello",)


def test_alternatives_of_a_ctm(tmp_path):
    lines = ["talk 1 0.10 0.20 hello 0.9", "talk 1 * * <ALT_BEGIN>", "talk 1 0.40 0.20 there 0.9"]
    lines += ["talk 1 * * <ALT>", "talk 1 0.40 0.30 their 0.5", "talk 1 * * <ALT_END>"]
    reference = "talk 1 spkA 0.00 2.00 <O> hello there\n"
    pairs = pair(*sides(tmp_path, reference, "\n".join(lines), ("ref.stm", "hyp.ctm")))
    assert pairs.hypotheses == ("hello { there / their }",)
    assert pairs.alternatives
    counts = score(pairs.references, pairs.hypotheses, aligner="sclite", alternatives=True).word_errors
    expected = sclite_counts(tmp_path / "ref.stm", tmp_path / "hyp.ctm", forms=("stm", "ctm"))
    assert (
        (counts.substitutions, counts.deletions, counts.insertions, counts.length) == expected == (0, 0, 0, 2)
    )


def test_ids_in_another_form_of_unicode_are_the_same(tmp_path):
    pairs = pair(*sides(tmp_path, "hello (\u00e91)\n", "hello (e\u03011)\n", ("ref.trn", "hyp.trn")))
    assert pairs.ids == ("\u00e91",)


def test_reports_name_their_normalizer(tmp_path):
    report = score(["A b"], ["a c"], ids=["u1"], normalizer="basic")
    (tmp_path / "one.json").write_text(report.to_json())
    (tmp_path / "sets.json").write_text(json.dumps({"sets": {"dev": report.to_dict()}}))
    for name in ("one.json", "sets.json"):
        found = read_transcripts(tmp_path / name)
        assert (found.normalizer, found.texts, found.fields) == ("basic", {"u1": "a c"}, {"u1": {}})
