"""Every form of manifest, as people have them, and what is wrong with some of them."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import load_audio
from asr.data import file_of, load_cuts, read_samples, write_cuts
from asr.data.corpora.generic import read_manifest
from asr.data.corpora.utterances import build_cuts
from asr.errors import ManifestError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def nemo(path: Path, *entries: dict) -> Path:
    return write(path, "".join(json.dumps(entry) + "\n" for entry in entries))


def test_nemo_lines_have_paths_relative_to_the_manifest(tmp_path, write_audio):
    write_audio(tmp_path / "wavs" / "a.wav", 2.0)
    path = nemo(
        tmp_path / "manifest.json",
        {"audio_filepath": "wavs/a.wav", "duration": 2.0, "text": "Hello, world", "speaker": 7, "age": 30},
    )
    utterances, problems = read_manifest(path)
    assert problems == []
    (cut,), unreadable = build_cuts(utterances)
    assert unreadable == []
    assert (cut.id, cut.duration) == ("wavs/a", 2.0)
    assert (cut.supervisions[0].text, cut.supervisions[0].speaker) == ("Hello, world", "7")
    assert cut.supervisions[0].custom == {"age": 30}
    assert cut.recording.sources[0].source == str((tmp_path / "wavs/a.wav").resolve())


def test_nemo_offsets_and_durations_select_a_part(tmp_path, write_audio):
    write_audio(tmp_path / "long.wav", 5.0)
    path = nemo(
        tmp_path / "manifest.jsonl",
        {"audio_filepath": "long.wav", "offset": 1.0, "duration": 1.5, "text": "one"},
        {"audio_filepath": "long.wav", "offset": 2.5, "duration": 99, "text": "two"},
        {"audio_filepath": "long.wav", "offset": 7.0, "duration": 1, "text": "three"},
    )
    cuts, problems = build_cuts(read_manifest(path)[0])
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [
        ("long-00001000", 1.0, 1.5),
        ("long-00002500", 2.5, 2.5),
    ]
    assert len(problems) == 1
    assert "long-00007000: starts at 7.0 s, after the end" in problems[0]


def test_nemo_duration_that_only_rounds_is_the_whole_file(tmp_path, write_audio):
    write_audio(tmp_path / "a.wav", 2.0)
    path = nemo(tmp_path / "m.json", {"audio_filepath": "a.wav", "duration": 1.95, "text": "one"})
    (cut,), _ = build_cuts(read_manifest(path)[0])
    assert cut.duration == 2.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", "line 1 of .* is not JSON"),
        ('{"path": "a.wav", "text": "x"}', "names no audio_filepath .it has path, text."),
        ("[1, 2]", "names no audio_filepath .it has list."),
        ('{"audio_filepath": "a.wav"}', "no utterance that can be used\n.*no text"),
        ('{"audio_filepath": "a.wav", "text": "x", "offset": -1}', "must be seconds, not negative"),
        ("", "no utterance that can be used"),
    ],
)
def test_nemo_lines_that_are_wrong(tmp_path, line, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path / "manifest.json", line + "\n"))


@pytest.fixture
def kaldi(tmp_path, write_audio) -> Path:
    """A Kaldi folder in which one recording is absolute and one relative to the folder above."""
    write_audio(tmp_path / "wav" / "a.flac", 3.0)
    write_audio(tmp_path / "wav" / "b.wav", 2.0)
    folder = tmp_path / "train"
    write(folder / "wav.scp", f"reca\t{tmp_path}/wav/a.flac\nrecb wav/b.wav\n")
    write(folder / "text", "reca  HELLO THERE\nrecb\tGOOD DAY\n")
    write(folder / "utt2spk", "reca s1\nrecb s2\n")
    write(folder / "spk2gender", "s1 m\ns2 f\n")
    write(folder / "spk2age", "s1 9\n")
    return folder


def test_kaldi_folder(kaldi):
    cuts, problems = build_cuts(read_manifest(kaldi)[0])
    assert problems == []
    segments = [cut.supervisions[0] for cut in cuts]
    assert [(s.id, s.text, s.speaker, s.gender) for s in segments] == [
        ("reca", "HELLO THERE", "s1", "m"),
        ("recb", "GOOD DAY", "s2", "f"),
    ]
    assert [segment.custom for segment in segments] == [{"age": 9}, None]


def test_kaldi_segments(kaldi):
    write(kaldi / "segments", "s1-1 reca 0.5 1.25\ns1-2 reca 2.0 2.5\ns1-3 lost 0 1\ns1-4 reca x 1\n")
    write(kaldi / "text", "s1-1 ONE\ns1-2 TWO\ns1-3 THREE\ns1-4 FOUR\n")
    write(kaldi / "utt2spk", "s1-1 s1\ns1-2 s1\n")
    utterances, problems = read_manifest(kaldi)
    cuts, _ = build_cuts(utterances)
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [("s1-1", 0.5, 0.75), ("s1-2", 2.0, 0.5)]
    assert len(problems) == 2
    assert "s1-3: its recording 'lost' is not in" in problems[0]
    assert "s1-4: segments gives 'x 1'" in problems[1]


def test_kaldi_pipes_are_refused_by_name(kaldi):
    write(kaldi / "wav.scp", "reca touch /tmp/ran |\nrecb wav/b.wav\n")
    utterances, problems = read_manifest(kaldi)
    assert [utterance.id for utterance in utterances] == ["recb"]
    assert "reca: wav.scp gives a command" in problems[0]
    assert "touch /tmp/ran |" in problems[0]


def test_kaldi_without_text(kaldi):
    (kaldi / "text").unlink()
    with pytest.raises(ManifestError, match=r"cannot read .*text: No such file"):
        read_manifest(kaldi)


def test_csv_with_quotes_and_a_byte_order_mark(tmp_path, write_audio):
    write_audio(tmp_path / "a.wav")
    path = tmp_path / "corpus.csv"
    path.write_bytes('File,Transcript,Speaker\na.wav,"Yes, ""quoted""",anna\n'.encode("utf-8-sig"))
    (utterance,), problems = read_manifest(path)
    assert problems == []
    assert (utterance.id, utterance.text, utterance.speaker) == ("a", 'Yes, "quoted"', "anna")
    assert utterance.audio.is_file()


def test_a_quotation_mark_left_open_is_told(tmp_path):
    rows = "".join(f"u{number}.wav,hello\n" for number in range(4))
    path = write(tmp_path / "m.csv", f'audio,text\nu.wav,"hello he said\n{rows}')
    with pytest.raises(ManifestError, match="is a quotation mark left open"):
        read_manifest(path)


def test_lines_that_name_no_audio_are_told(tmp_path, write_audio):
    write_audio(tmp_path / "a.wav", 1.0)
    for path in (
        write(tmp_path / "m.csv", "audio,text\na.wav,hello\n,nobody\n"),
        nemo(
            tmp_path / "m.json",
            {"audio_filepath": "a.wav", "text": "hello"},
            {"audio_filepath": " ", "text": "x"},
        ),
    ):
        utterances, problems = read_manifest(path)
        assert [utterance.text for utterance in utterances] == ["hello"]
        assert len(problems) == 1


def test_an_utterance_without_duration_is_told(tmp_path, write_audio):
    write_audio(tmp_path / "a.wav", 1.0)
    path = nemo(tmp_path / "m.json", {"audio_filepath": "a.wav", "text": "hello", "duration": 0.0})
    cuts, problems = build_cuts(read_manifest(path)[0])
    assert (cuts, problems) == ([], ["a: its duration is 0.0 s"])


def test_rows_of_a_table_may_be_parts_of_files(tmp_path, write_audio):
    write_audio(tmp_path / "long.wav", 5.0)
    write_audio(tmp_path / "short.wav", 1.0)
    rows = ["long.wav,1.0,2.5,9,one", "long.wav,2.5,,1.5,two", "short.wav,,,0:01,three", "long.wav,4,3,,four"]
    (tmp_path / "t.csv").write_text("path,start,end,duration,text\n" + "\n".join(rows))
    utterances, problems = read_manifest(tmp_path / "t.csv")
    cuts, _ = build_cuts(utterances)
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [
        ("long-00001000", 1.0, 1.5),
        ("long-00002500", 2.5, 1.5),
        ("short", 0.0, 1.0),
    ]
    assert problems == [f"line 5 of {tmp_path / 't.csv'}: start and end must be seconds, in order"]


def test_semicolons_separate_a_csv_too(tmp_path):
    (utterance,), _ = read_manifest(write(tmp_path / "c.csv", "path;text\nx/a.wav;one, two\n"))
    assert (utterance.id, utterance.text, utterance.speaker) == ("x/a", "one, two", None)


def test_common_voice_tsv(tmp_path, write_audio):
    write_audio(tmp_path / "clips" / "c1.mp3")
    path = write(
        tmp_path / "train.tsv",
        'client_id\tpath\tsentence\tgender\nabc\tc1.mp3\tShe said "no.\tfemale\nabd\tshort\n',
    )
    (utterance,), problems = read_manifest(path)
    assert (utterance.text, utterance.speaker, utterance.gender) == ('She said "no.', "abc", "female")
    assert utterance.audio == tmp_path / "clips" / "c1.mp3"
    assert problems == [f"line 3 of {path}: 2 fields, but the header has 4"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("name,text", "no column of audio: its header is name, text; expected one of audio,"),
        ("path,words", "no column of text: its header is path, words"),
        ("", "its header is empty"),
    ],
)
def test_tables_without_the_needed_columns(tmp_path, header, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path / "t.csv", header + "\nx,y\n"))


def test_text_in_another_encoding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("path,text\na.wav,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="not UTF-8"):
        read_manifest(path)


def test_folder_of_audio_with_transcripts(tmp_path, write_audio):
    for name in ("anna/1.wav", "anna/2.flac", "bert/1.opus"):
        write_audio(tmp_path / name, sample_rate=48000)
        write((tmp_path / name).with_suffix(".txt"), "Hello,\n  world\n")
    write_audio(tmp_path / "bert" / "2.wav")
    utterances, problems = read_manifest(tmp_path)
    assert [(u.id, u.speaker, u.text) for u in utterances] == [
        ("anna/1", "anna", "Hello, world"),
        ("anna/2", "anna", "Hello, world"),
        ("bert/1", "bert", "Hello, world"),
    ]
    assert problems == [f"bert/2: there is no transcript {tmp_path}/bert/2.txt"]
    assert len(build_cuts(utterances)[0]) == 3


def test_flat_folder_knows_no_speakers(tmp_path, write_audio):
    write(write_audio(tmp_path / "1.wav").with_suffix(".txt"), "one")
    write(write_audio(tmp_path / "more" / "2.wav").with_suffix(".txt"), "two")
    assert {utterance.speaker for utterance in read_manifest(tmp_path)[0]} == {None}


def test_sources_that_are_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"there is no .*lost"):
        read_manifest(tmp_path / "lost")
    with pytest.raises(ManifestError, match="holds no audio"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="no manifest known here"):
        read_manifest(write(tmp_path / "notes.doc", ""))


def test_links_to_folders_are_followed_and_dead_links_told(tmp_path, write_audio):
    write(write_audio(tmp_path / "disk" / "1.wav").with_suffix(".txt"), "one")
    folder = tmp_path / "mine"
    write(folder / "lost.txt", "two")
    (folder / "lost.wav").symlink_to("nowhere.wav")
    (folder / "anna").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(folder)
    cuts, problems = build_cuts(read_manifest(folder)[0])
    assert [cut.id for cut in cuts] == ["anna/1"]
    assert problems == [f"lost: there is no file {folder}/lost.wav"]


def test_spaces_behind_the_separator(tmp_path, write_audio):
    write_audio(tmp_path / "a.wav")
    (utterance,), problems = read_manifest(write(tmp_path / "t.csv", 'path , "text"\na.wav , "one, two"\n'))
    assert (utterance.id, utterance.text, problems) == ("a", "one, two", [])
    assert utterance.audio.is_file()


@pytest.mark.parametrize("name", [".", "..", "/", "a\0b.wav", "x" * 300 + ".wav"])
def test_names_that_no_file_can_have(tmp_path, name):
    path = write(tmp_path / "t.csv", f"path,text\n{name},one\n")
    cuts, problems = build_cuts(read_manifest(path)[0])
    assert cuts == []
    assert len(problems) == 1
    assert "there is no file" in problems[0]


def test_what_utf8_cannot_hold_is_told(tmp_path, write_audio):
    (tmp_path / "m.json").write_bytes(b'{"audio_filepath": "a.wav", "text": "one \\ud83d"}\n')
    write_audio(tmp_path / "a.wav")
    assert build_cuts(read_manifest(tmp_path / "m.json")[0]) == (
        [],
        ["a: its name or transcript holds '\\ud83d', which is no character"],
    )


def test_the_line_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"path,text\n" + 2000 * b"a.wav,cafe\n" + b"a.wav,caf\xe9\n")
    with pytest.raises(ManifestError, match=r"line 2002 of .*t\.csv is not UTF-8 text"):
        read_manifest(path)


def test_kaldi_keys_that_stand_twice_are_told(kaldi):
    with (kaldi / "text").open("a") as text:
        text.write("reca SOMETHING ELSE\n")
    utterances, problems = read_manifest(kaldi)
    assert [utterance.text for utterance in utterances] == ["HELLO THERE", "GOOD DAY"]
    assert problems == [f"reca: a second line of {kaldi / 'text'} has this key"]


def test_the_end_of_a_part_is_not_moved(tmp_path, write_audio, caplog):
    write_audio(tmp_path / "a.wav", 1.0)
    path = nemo(
        tmp_path / "m.json",
        {"audio_filepath": "a.wav", "offset": 0.5, "duration": 0.45, "text": "one"},
        {"audio_filepath": "a.wav", "offset": 0, "duration": 0.95, "text": "two"},
        {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.9, "text": "three"},
    )
    cuts, problems = build_cuts(read_manifest(path)[0])
    assert [(cut.start, cut.duration) for cut in cuts] == [(0.0, 0.95), (0.25, 0.75), (0.5, 0.45)]
    assert problems == []
    assert caplog.messages == ["1 utterances end after their files and are cut there: a-00000250"]


def test_kaldis_end_of_minus_one_is_that_of_the_file(kaldi):
    write(kaldi / "segments", "u1 reca 0.5 -1\nu2 reca 1 -1.0\nu3 recb 0 -2\n")
    write(kaldi / "text", "u1 ONE\nu2 TWO\nu3 THREE\n")
    utterances, problems = read_manifest(kaldi)
    cuts, _ = build_cuts(utterances)
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [("u1", 0.5, 2.5), ("u2", 1.0, 2.0)]
    assert problems == ["u3: segments gives '0 -2'; expected start and end in seconds"]


@pytest.fixture
def call(tmp_path) -> Path:
    """A call: 400 Hz on the one channel, 1000 Hz on the other."""
    time = np.arange(16000) / 16000
    both = np.stack([0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (400, 1000)], 1)
    soundfile.write(tmp_path / "call.wav", both, 16000)
    return tmp_path / "call.wav"


def hertz(cut) -> float:
    spectrum = np.abs(np.fft.rfft(read_samples(cut, 16000)))
    return float(spectrum.argmax() / cut.duration)


def test_channels_of_nemo_lines(call):
    lines = [
        {"audio_filepath": "call.wav", "text": "x", "channel": channel}
        for channel in (0, 1, "1", None, 2, "left")
    ]
    lines[2] |= {"offset": 0.5, "duration": 0.25}
    utterances, problems = read_manifest(nemo(call.parent / "m.json", *lines))
    cuts, unreadable = build_cuts(utterances)
    assert [(cut.id, cut.channel) for cut in cuts] == [
        ("call", [0, 1]),
        ("call-00000500-c1", 1),
        ("call-c0", 0),
        ("call-c1", 1),
    ]
    assert [hertz(cut) for cut in cuts[1:]] == [1000, 400, 1000]
    assert [cut.supervisions[0].channel for cut in cuts] == [[0, 1], 1, 0, 1]
    assert problems == [
        f"line 6 of {call.parent / 'm.json'}: the channel is 'left'; expected a number from 0, or A, B, ..."
    ]
    assert unreadable == [f"call-c2: is of channel 2, counted from 0, but {call} has 2"]


def test_channels_of_a_table(call):
    path = write(call.parent / "t.csv", "path,channel,text\ncall.wav,0,x\ncall.wav,B,y\ncall.wav,,z\n")
    cuts, problems = build_cuts(read_manifest(path)[0])
    assert [(cut.id, cut.channel) for cut in cuts] == [("call", [0, 1]), ("call-c0", 0), ("call-c1", 1)]
    assert ([hertz(cut) for cut in cuts[1:]], problems) == ([400, 1000], [])


def test_channels_of_a_cut_survive_the_manifest(call, tmp_path):
    path = write(tmp_path / "t.csv", "path,channel,text\ncall.wav,1,y\n")
    (cut,) = load_cuts(write_cuts(build_cuts(read_manifest(path)[0])[0], tmp_path, "train"))
    assert (cut.channel, hertz(cut)) == (1, 1000)
    assert cut.to_lhotse().load_audio().shape == (1, 16000)


def test_channels_of_kaldis_segments(call):
    folder = call.parent / "kaldi"
    write(folder / "wav.scp", f"rec {call}\n")
    write(folder / "segments", "a rec 0 0.5 0\nb rec 0 0.5 1\nc rec 0 0.5\nd rec 0 0.5 -1\n")
    write(folder / "text", "a ONE\nb TWO\nc THREE\nd FOUR\n")
    utterances, problems = read_manifest(folder)
    cuts, _ = build_cuts(utterances)
    assert [(cut.id, cut.channel) for cut in cuts] == [("a", 0), ("b", 1), ("c", [0, 1])]
    assert [hertz(cut) for cut in cuts[:2]] == [400, 1000]
    assert problems == ["d: segments gives '0 0.5 -1'; expected start and end in seconds"]


def test_channels_of_kaldis_reco2file(call, write_audio):
    folder = call.parent / "kaldi"
    single = write_audio(call.parent / "single.wav")
    write(folder / "wav.scp", f"call-A {call}\ncall-B {call}\nother-B {single}\n")
    write(folder / "reco2file_and_channel", "call-A call A\ncall-B call B\nother-B other B\n")
    write(folder / "text", "call-A ONE\ncall-B TWO\nother-B THREE\n")
    utterances, problems = read_manifest(folder)
    cuts, unreadable = build_cuts(utterances)
    assert [(cut.id, cut.channel) for cut in cuts] == [("call-A", 0), ("call-B", 1), ("other-B", 0)]
    assert [hertz(cut) for cut in cuts[:2]] == [400, 1000]
    assert problems == unreadable == []


@pytest.mark.parametrize(
    ("name", "content", "text", "speaker"),
    [
        ("metadata.csv", 'LJ001-0001|said "1465|said "fourteen|\n', None, None),
        ("metadata.csv", 'LJ001-0001|he said "1465|he said "fourteen\n', 'he said "fourteen', None),
        ("metadata.csv", "LJ001-0001|in 1465\n", "in 1465", None),
        ("coqui.csv", "audio_file|text|speaker_name\nwavs/LJ001-0001.wav|in 1465|anna\n", "in 1465", "anna"),
        ("coqui.csv", "audio_file|text|speaker_name\nLJ001-0001|in 1465|anna\n", "in 1465", "anna"),
        (
            "deepspeech.csv",
            "wav_filename,wav_filesize,transcript\nwavs/LJ001-0001.wav,32044,in\n",
            "in",
            None,
        ),
        (
            "spgi.csv",
            "wav_filename|wav_filesize|transcript\nwavs/LJ001-0001.wav|32044|In, or\n",
            "In, or",
            None,
        ),
    ],
)
def test_tables_of_other_toolkits(tmp_path, write_audio, name, content, text, speaker):
    audio = write_audio(tmp_path / "wavs" / "LJ001-0001.wav")
    path = write(tmp_path / name, content)
    if text is None:
        with pytest.raises(ManifestError, match="has no column of audio"):
            read_manifest(path)
        return
    (utterance,), problems = read_manifest(path)
    assert (utterance.audio, utterance.text, utterance.speaker, problems) == (audio, text, speaker, [])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["NFC", "NFD"])
def test_names_in_either_normal_form(tmp_path, write_audio, form, named):
    name = unicodedata.normalize(named, "café.wav")
    audio = write_audio(tmp_path / "wav" / unicodedata.normalize(form, "café.wav"))
    write(tmp_path / "wav" / unicodedata.normalize(named, "café.txt"), "one")
    folder = tmp_path / "kaldi"
    write(folder / "wav.scp", f"u {tmp_path}/wav/{name}\n")
    write(folder / "text", "u one\n")
    for path in (
        nemo(tmp_path / "m.json", {"audio_filepath": f"wav/{name}", "text": "one"}),
        write(tmp_path / "t.csv", f"path,text\n{name},one\n"),
        folder,
        tmp_path / "wav",
    ):
        (cut,), problems = build_cuts(read_manifest(path)[0])
        assert (file_of(cut), problems) == (str(audio), [])
        assert len(read_samples(cut, 16000)) == 16000
    assert len(load_audio(tmp_path / "wav" / name)) == 16000


def test_paths_relative_to_the_current_folder(tmp_path, write_audio, monkeypatch):
    write_audio(tmp_path / "data" / "a.wav")
    monkeypatch.chdir(tmp_path)
    for path in (
        nemo(tmp_path / "lists" / "m.json", {"audio_filepath": "data/a.wav", "text": "one"}),
        write(tmp_path / "lists" / "t.csv", "path,text\ndata/a.wav,one\n"),
    ):
        (cut,), problems = build_cuts(read_manifest(path)[0])
        assert (file_of(cut), problems) == (str(tmp_path / "data" / "a.wav"), [])


def test_folders_that_cannot_be_read_are_told(tmp_path, write_audio, monkeypatch):
    write(write_audio(tmp_path / "anna" / "1.wav").with_suffix(".txt"), "one")
    write_audio(tmp_path / "bert" / "1.wav")
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith("bert"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refusing)  # root may read anything
    utterances, problems = read_manifest(tmp_path)
    assert [utterance.id for utterance in utterances] == ["anna/1"]
    assert problems == [f"the folder {tmp_path}/bert cannot be read: Permission denied"]


def test_two_files_of_one_id_are_told(tmp_path, write_audio):
    for name in ("1.wav", "1.flac"):
        write(write_audio(tmp_path / name).with_suffix(".txt"), "one")
    cuts, problems = build_cuts(read_manifest(tmp_path)[0])
    assert len(cuts) == 1
    assert problems == [f"1: a second utterance has this id, of {tmp_path}/1.wav"]
