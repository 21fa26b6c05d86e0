"""Corpora that cannot be had here, on small folders generated in their published layouts."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from asr.cli.main import main
from asr.data.corpora import lhotse as recipes
from asr.data.corpora.catalogue import CORPORA, FURTHER, SUPERSEDED, WITHOUT_TRANSCRIPTS
from asr.data.corpora.prepare import prepare
from asr.data.cuts import load_cuts, speaker_of, text_of
from asr.errors import ManifestError


def sizes(preparation) -> dict[str, int]:
    return {name: len(cuts) for name, cuts in preparation.splits.items()}


def only(cuts):
    (cut,) = cuts
    return cut.id, speaker_of(cut), text_of(cut)


def test_fsdd_holds_the_official_test_recordings_apart(tmp_path, write_audio):
    for speaker in ("jackson", "theo", "nicolas"):
        for index in range(7):
            write_audio(tmp_path / "recordings" / f"7_{speaker}_{index}.wav", 0.4, 8000)
    write_audio(tmp_path / "recordings" / "seven.wav")
    preparation = prepare("fsdd", tmp_path, tmp_path / "out", dev_speakers=["theo"])
    assert sizes(preparation) == {"train": 4, "dev": 2, "test": 15}
    assert {speaker_of(cut) for cut in preparation.splits["dev"]} == {"theo"}
    assert {text_of(cut) for cut in preparation.splits["test"]} == {"seven"}
    assert preparation.problems == ["seven: is not named DIGIT_SPEAKER_INDEX"]


def test_fsdd_real(shared_data, tmp_path):
    preparation = prepare("fsdd", shared_data / "fsdd", tmp_path)
    assert sum(sizes(preparation).values()) == 2700
    assert preparation.problems == []


def test_speech_commands(tmp_path, write_audio):
    for word in ("yes", "no"):
        for speaker in ("0a7c2a8d", "1b88bf70", "2c6d3924"):
            write_audio(tmp_path / word / f"{speaker}_nohash_0.wav")
    write_audio(tmp_path / "_background_noise_" / "running_tap.wav", 3)
    (tmp_path / "validation_list.txt").write_text("yes/1b88bf70_nohash_0.wav\nno/1b88bf70_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("yes/2c6d3924_nohash_0.wav\nno/lost_nohash_0.wav\n")
    preparation = prepare("speech_commands", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 3, "dev": 2, "test": 1}
    assert only(preparation.splits["test"]) == ("yes/2c6d3924_nohash_0", "2c6d3924", "yes")
    assert preparation.problems == ["no/lost_nohash_0.wav: is in the test list but not there"]


def common_voice(folder: Path, write_audio) -> Path:
    columns = (
        "client_id\tpath\tsentence_id\tsentence\tup_votes\tage\tgender\taccents\tvariant\tlocale\tsegment"
    )
    for split, count in (("train", 3), ("dev", 1), ("test", 1)):
        rows = []
        for number in range(count):
            write_audio(folder / "clips" / f"common_voice_{split}_{number}.mp3")
            rows.append(
                f'a{number}\tcommon_voice_{split}_{number}.mp3\tx\tEr sagte: "Ja.\t2\tsixties\tmale_masculine\t\t\tde\t'
            )
        (folder / f"{split}.tsv").write_text("\n".join([columns, *rows]) + "\n", "utf-8")
    return folder


def test_common_voice(tmp_path, write_audio):
    common_voice(tmp_path / "cv" / "de", write_audio)
    preparation = prepare("common_voice", tmp_path / "cv", tmp_path / "out")
    assert sizes(preparation) == {"train": 3, "dev": 1, "test": 1}
    (cut,) = preparation.splits["test"]
    assert only([cut]) == ("common_voice_test_0", "a0", 'Er sagte: "Ja.')
    assert cut.supervisions[0].language == "de"
    assert cut.supervisions[0].custom == {"age": "sixties"}
    direct = prepare("common_voice", tmp_path / "cv" / "de", tmp_path / "out")
    assert sizes(direct) == sizes(preparation)
    common_voice(tmp_path / "cv" / "rm-sursilv", write_audio)
    with pytest.raises(ManifestError, match="several languages; choose --language from de, rm-sursilv"):
        prepare("common_voice", tmp_path / "cv", tmp_path / "out")
    with pytest.raises(ManifestError, match="no language fr; choose --language from de, rm-sursilv"):
        prepare("common_voice", tmp_path / "cv", tmp_path / "out", language="fr")
    romansh = prepare("common_voice", tmp_path / "cv", tmp_path / "out", language="rm-sursilv")
    assert romansh.splits["dev"][0].supervisions[0].language == "rm-sursilv"


@pytest.mark.parametrize("suffix", [".flac", ".opus"])
def test_multilingual_librispeech(tmp_path, write_audio, suffix):
    folder = tmp_path / ("mls_polish_opus" if suffix == ".opus" else "mls_polish")
    for split, speakers in (("train", (6892, 8758)), ("dev", (1889,)), ("test", (4788,))):
        lines = []
        for speaker in speakers:
            for number in range(2):
                key = f"{speaker}_10355_{number:06d}"
                write_audio(folder / split / "audio" / str(speaker) / "10355" / f"{key}{suffix}")
                lines.append(f"{key}\tna wszystko się zgodził\n")
        lines.append("1_2_000003\tjego audio nie ma\n")
        (folder / split / "transcripts.txt").write_text("".join(lines), "utf-8")
    (folder / "metainfo.txt").write_text(
        " SPEAKER   |   GENDER   | PARTITION\n 4788 | M | test | 20 | 10355 | Tytul \n"
    )
    preparation = prepare("mls", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 4, "dev": 2, "test": 2}
    cut = preparation.splits["test"][0]
    assert only([cut]) == ("4788_10355_000000", "4788", "na wszystko się zgodził")
    assert (cut.supervisions[0].gender, cut.supervisions[0].language) == ("M", "polish")
    assert len(preparation.problems) == 3
    assert "1_2_000003" in preparation.problems[0]


def test_voxpopuli_as_its_scripts_cut_it(tmp_path, write_audio):
    folder = tmp_path / "transcribed_data" / "hr"
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent"
    for split in ("train", "dev", "test"):
        key = f"20170614-0900-PLENARY-15-hr_20170614-21:23:11_{split}"
        write_audio(folder / "2017" / f"{key}.ogg")
        row = f"{key}\tHvala, lijepa.\thvala lijepa\t124756_{split}\t{split}\tfemale\tTrue\tNone"
        (folder / f"asr_{split}.tsv").write_text(f"{header}\n{row}\n", "utf-8")
    preparation = prepare("voxpopuli", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 1, "dev": 1, "test": 1}
    assert only(preparation.splits["dev"])[1:] == ("124756_dev", "hvala lijepa")
    (folder / "asr_dev.tsv").write_text("path\ttext\n")
    with pytest.raises(ManifestError, match="has no column id, normalized_text"):
        prepare("voxpopuli", tmp_path, tmp_path / "out")


def test_voxpopuli_as_published(tmp_path, write_audio):
    session = "20090112-0900-PLENARY-3"
    write_audio(tmp_path / "raw_audios" / "original" / "2009" / f"{session}_original.ogg", 8)
    header = "session_id|paragraph_id|id_|start_time|end_time|speaker_id|gender|normed_text|original_text|split|lang"
    rows = [
        f"{session}|1|{number}|{2.0 * number}|{2.0 * number + 1.5}|77|male|some words|Some words.|{split}|en"
        for number, split in enumerate(["train", "dev", "test", "invalid"])
    ]
    with gzip.open(tmp_path / "asr_en.tsv.gz", "wt") as file:
        file.write("\n".join([header, *rows]) + "\n")
    preparation = prepare("voxpopuli", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 1, "dev": 1, "test": 1}
    cut = preparation.splits["test"][0]
    assert (cut.id, cut.start, cut.duration) == (f"{session}-2", 4.0, 1.5)


def test_fleurs(tmp_path, write_audio):
    folder = tmp_path / "data" / "sw_ke"
    for split in ("train", "dev", "test"):
        write_audio(folder / "audio" / split / "10004088536354799741.wav")
        (folder / f"{split}.tsv").write_text(
            "1675\t10004088536354799741.wav\tHabari Zako.\thabari zako\th a b a r i | z a k o |\t16000\tFEMALE\n"
            "broken line\n"
        )
    preparation = prepare("fleurs", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 1, "dev": 1, "test": 1}
    assert only(preparation.splits["dev"]) == ("1675-10004088536354799741", None, "habari zako")
    assert preparation.splits["dev"][0].supervisions[0].gender == "female"
    assert len(preparation.problems) == 3


def test_gigaspeech(tmp_path, write_audio):
    write_audio(tmp_path / "audio" / "podcast" / "P0000" / "POD1.opus", 10)
    texts = ["YEAH <COMMA> RIGHT <PERIOD>", "<MUSIC>", "SO <QUESTIONMARK>", "GOOD"]
    subsets = [["{XS}", "{XL}"], ["{XL}"], ["{XL}"], ["{DEV}"]]
    segments = [
        {
            "sid": f"POD1_S{number}",
            "speaker": "N/A",
            "begin_time": 2.0 * number,
            "end_time": 2.0 * number + 1,
            "text_tn": text,
            "subsets": names,
        }
        for number, (text, names) in enumerate(zip(texts, subsets, strict=True))
    ]
    audio = {"aid": "POD1", "path": "audio/podcast/P0000/POD1.opus", "segments": segments}
    (tmp_path / "GigaSpeech.json").write_text(json.dumps({"audios": [audio]}))
    preparation = prepare("gigaspeech", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 2, "dev": 1, "train-xl": 2, "train-xs": 1}
    assert [text_of(cut) for cut in preparation.splits["train"]] == ["YEAH RIGHT", "SO"]
    assert "1 utterances without speech" in preparation.notes[0]
    small = prepare("gigaspeech", tmp_path, tmp_path / "small", parts=["train-xs", "dev"])
    assert sizes(small) == {"train": 1, "dev": 1, "train-xs": 1}
    with pytest.raises(ManifestError, match=r"no part train-xxl; it has dev, train, train-xl, train-xs"):
        prepare("gigaspeech", tmp_path, tmp_path / "small", parts=["train-xxl"])
    (tmp_path / "GigaSpeech.json").write_text('{"audios": [')
    with pytest.raises(ManifestError, match=r"GigaSpeech.json is damaged"):
        prepare("gigaspeech", tmp_path, tmp_path / "out")


def test_tedlium(tmp_path, write_audio):
    for split in ("train", "dev", "test"):
        write_audio(tmp_path / "legacy" / split / "sph" / f"AlGore_{split}.sph", 6)
        (tmp_path / "legacy" / split / "stm").mkdir(parents=True)
        (tmp_path / "legacy" / split / "stm" / f"AlGore_{split}.stm").write_text(
            f"AlGore_{split} 1 AlGore_{split} 0.5 2.0 <o,f0,male> i 'm here <unk> {{NOISE}} today\n"
            f"AlGore_{split} 1 AlGore_{split} 2.0 3.0 <o,f0,male> ignore_time_segment_in_scoring\n"
            f"AlGore_{split} 1 AlGore_{split} 3.0 5.0 <o,f0,male> thank you\n"
        )
    preparation = prepare("tedlium", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 2, "dev": 2, "test": 2}
    first, second = preparation.splits["dev"]
    assert speaker_of(first) == "AlGore_dev"
    assert text_of(first) == "i'm here today"
    assert (second.start, second.duration) == (3.0, 2.0)


def test_ljspeech_is_spoken_as_normalized(tmp_path, write_audio):
    lines = []
    for number in range(10):
        write_audio(tmp_path / "wavs" / f"LJ001-{number:04d}.wav", 1, 22050)
        lines.append(f"LJ001-{number:04d}|in 1465|in fourteen sixty-five\n")
    (tmp_path / "metadata.csv").write_text("".join(lines))
    preparation = prepare("ljspeech", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 9, "dev": 1}
    assert {text_of(cut) for cut in preparation.splits["train"]} == {"in fourteen sixty-five"}


def test_a_part_of_ljspeech_is_a_corpus(tmp_path, write_audio):
    write_audio(tmp_path / "wavs" / "LJ001-0001.wav", 1, 22050)
    write_audio(tmp_path / "wavs" / "LJ001-0002.wav", 1, 22050)
    rows = [f"LJ001-{number:04d}|in 1465|in fourteen sixty-five\n" for number in range(1, 6)]
    (tmp_path / "metadata.csv").write_text("".join(rows))
    preparation = prepare("ljspeech", tmp_path, tmp_path / "out", dev_fraction=0)
    assert (sizes(preparation), preparation.problems) == ({"train": 2}, [])
    assert preparation.notes == [
        "3 of 5 utterances of metadata.csv have no audio here: LJ001-0003, LJ001-0004, LJ001-0005"
    ]
    (tmp_path / "wavs").rename(tmp_path / "other")
    with pytest.raises(ManifestError, match=r"holds none of the audio that metadata\.csv names"):
        prepare("ljspeech", tmp_path, tmp_path / "out")


def test_spgispeech(tmp_path, write_audio):
    for split in ("train", "val"):
        for call in ("07a785e9", "18b896f0"):
            write_audio(tmp_path / "spgispeech" / split / call / "1.wav")
        (tmp_path / f"{split}.csv").write_text(
            "wav_filename|wav_filesize|transcript\n"
            "07a785e9/1.wav|32044|Good morning, everyone.\n18b896f0/1.wav|32044|We grew 5%.\n"
        )
    preparation = prepare("spgispeech", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 2, "dev": 2, "val": 2}
    assert only(preparation.splits["dev"][:1]) == ("07a785e9_1", "07a785e9", "Good morning, everyone.")


def test_librispeech_parts(tmp_path, write_audio):
    for part in ("train-clean-5", "dev-clean-2", "test-clean"):
        write_audio(tmp_path / "LibriSpeech" / part / "1" / "2" / "1-2-0000.flac")
        (tmp_path / "LibriSpeech" / part / "1" / "2" / "1-2.trans.txt").write_text("1-2-0000 WORDS\n")
    options = {"corpus_dir": tmp_path, "output_dir": tmp_path / "out"}
    chosen = prepare("mini_librispeech", parts=["train-clean-5", "dev-clean-2"], **options)
    assert sizes(chosen) == {"train": 1, "dev": 1, "dev-clean-2": 1, "train-clean-5": 1}


def test_any_other_recipe_of_lhotse_by_its_name(tmp_path, write_audio):
    for part in ("train", "dev", "test"):
        for speaker in ("A11", "B12"):
            write_audio(tmp_path / "data_thchs30" / part / f"{speaker}_{part}.wav")
            text = tmp_path / "data_thchs30" / "data" / f"{speaker}_{part}.wav.trn"
            text.parent.mkdir(exist_ok=True)
            text.write_text("绿 是 阳春 烟 景\nlv4 shi4 yang2 chun1\nl v4 sh ix4\n", "utf-8")
    preparation = prepare("thchs_30", tmp_path, tmp_path / "out")
    assert sizes(preparation) == {"train": 2, "dev": 2, "test": 2}
    assert speaker_of(preparation.splits["test"][0]) == "A11"
    with pytest.raises(ManifestError, match="lhotse's prepare_atcosim"):
        prepare("atcosim", tmp_path, tmp_path / "out")


def test_the_list_shows_every_corpus(capsys):
    assert main(["prepare", "--list"]) == 0
    shown = capsys.readouterr().out
    for name, corpus in CORPORA.items():
        assert name in shown
        assert corpus.license in shown
        assert corpus.archives or corpus.by_hand


def test_the_list_needs_no_lhotse():
    script = "import sys; from asr.cli.main import main; main(['prepare', '--list']); sys.exit('lhotse' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_every_recipe_of_lhotse_is_in_the_list():
    passed_over = {*WITHOUT_TRANSCRIPTS, *SUPERSEDED}
    assert set(recipes.known()) - passed_over <= set(CORPORA)
    assert not passed_over & set(CORPORA)
    assert set(FURTHER) <= set(recipes.known())


@pytest.mark.parametrize(
    "name",
    ["common_voice", "fleurs", "fsdd", "gigaspeech", "mls", "speech_commands", "speechocean762", "voxpopuli"],
)
def test_a_folder_that_is_another_corpus(tmp_path, name):
    with pytest.raises(ManifestError, match=str(tmp_path)):
        prepare(name, tmp_path, tmp_path / "out")


def test_the_command_takes_parts_language_and_jobs(tmp_path, write_audio, capsys):
    folder = common_voice(tmp_path / "cv" / "de", write_audio).parent
    arguments = [
        "prepare",
        "common_voice",
        str(folder),
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--language", "de", "--jobs", "2", "--parts", "train", "test"]) == 0
    assert "alphabet of train" in capsys.readouterr().out
    assert len(load_cuts(tmp_path / "out" / "cuts_test.jsonl.gz")) == 1
    assert soundfile.info(load_cuts(tmp_path / "out" / "cuts_test.jsonl.gz")[0].recording.sources[0].source)
    assert main([*arguments, "--download"]) == 1
    assert "cannot be downloaded here: its publisher asks" in capsys.readouterr().err


def test_damaged_tables_are_told(tmp_path, an4):
    voxpopuli = tmp_path / "vp"
    voxpopuli.mkdir()
    (voxpopuli / "asr_en.tsv.gz").write_bytes(b"no gzip")
    gigaspeech = tmp_path / "gs"
    gigaspeech.mkdir()
    (gigaspeech / "GigaSpeech.json").write_text(
        '{"audios": [{"path": "a.opus", "segments": [{"sid": "x"}]}]}'
    )
    (an4 / "etc" / "an4_train.transcription").write_bytes(b"<s> NO\xcb </s> (an0)\n")
    for corpus, folder, message in (
        ("voxpopuli", voxpopuli, r"cannot read .*asr_en\.tsv\.gz: Not a gzipped file"),
        ("gigaspeech", gigaspeech, r"is damaged, or not in the layout .*: KeyError\('text_tn'\)"),
        ("an4", an4, r"line 1 of .*an4_train\.transcription is not UTF-8"),
    ):
        with pytest.raises(ManifestError, match=message):
            prepare(corpus, folder, tmp_path / "out")


def test_rows_cut_short_are_told(tmp_path, write_audio):
    folder = tmp_path / "hr"
    for number in range(2):
        write_audio(folder / "2017" / f"2017{number}.ogg")
    rows = ["id\traw_text\tnormalized_text", "20170\tA.\ta", "20171\tB"]
    (folder / "asr_train.tsv").write_text("\n".join(rows))
    preparation = prepare("voxpopuli", tmp_path, tmp_path / "out", dev_fraction=0)
    assert sizes(preparation) == {"train": 1}
    assert preparation.problems == [f"line 3 of {folder / 'asr_train.tsv'}: expected 3 fields"]
