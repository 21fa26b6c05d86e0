"""Every command in README, docs/ and the recipes' pages runs, on small speech in the corpus's own layout."""

import importlib
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, SETTINGS, make_bundle, make_corpus, say
from random_lms import random_lm

from asr.cli import main
from asr.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a b", "abc", "ca ab", "c", "b c a", "bac", "ab ab", "cc b"]


def commands_of(readme: Path) -> list[list[str]]:
    """Return the `asr ...` lines of a README's code blocks, as a shell splits them."""
    return [command[1:] for command in lines_of(readme, "asr ")]


def python_of(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def lines_of(readme: Path, beginning: str = "") -> list[list[str]]:
    """Return the lines of a README's code blocks that begin so, as a shell splits them."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if line.startswith(beginning)]
    return [line for line in split if line]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with the recipes and scripts in it, to run a README's commands in."""
    for folder in ("recipes", "scripts"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_all(
    commands: list[list[str]], replaced: dict[str, str] | None = None, training: tuple[str, ...] = ()
):
    for command in commands:
        arguments = [(replaced or {}).get(argument, argument) for argument in command]
        if arguments[0] == "train":
            arguments += [*SETTINGS, "--run.epochs=1", "--text.tokenizer=characters", *training]
        # The doctor finds much to say of tones; that it said it is status 1.
        assert main(arguments) in ((0, 1) if arguments[0] == "check" else (0,)), arguments


def is_at_hand(command: list[str]) -> bool:
    """Whether a page's command needs neither a public corpus, nor a device, nor words the test cannot say."""
    foreign = (
        "corpora/",
        "data/mini_librispeech/",
        "test-",
        "recipes/",
        "--run.devices",
        "three one seven",
        "speech.txt",
    )
    needs_microphone = command[0] == "listen" and "-" not in command
    needs_a_trained_model = command[0] == "label"  # the one here is sure of nothing
    never_ends = command[0] == "serve"
    is_elsewhere = any("://" in argument for argument in command)
    if needs_microphone or needs_a_trained_model or never_ends or is_elsewhere:
        return False
    return not any(argument.startswith(foreign) for argument in command)


def check_options(command: list[str], monkeypatch) -> None:
    """Parse a command's options and configuration, and do no more."""
    if command[0] == "train":
        assert main([*command, "--print-config"]) == 0
        return
    module = importlib.import_module(COMMANDS[command[0]][0])
    with monkeypatch.context() as patch:
        patch.setattr(module, "run", lambda arguments: 0)
        assert main(command) == 0


def write_an4(folder: Path) -> None:
    generator = np.random.default_rng(1)
    for split, audio, count in (("train", "an4_clstk", 6), ("test", "an4test_clstk", 2)):
        ids, lines = [], []
        for speaker in range(count):
            for index in range(4):
                text = TEXTS[(speaker + index) % len(TEXTS)]
                name = f"an{index}-s{split}{speaker}-b"
                path = folder / "wav" / audio / f"s{split}{speaker}" / f"{name}.sph"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, say(text, generator), RATE, format="NIST", subtype="PCM_16")
                ids.append(f"{audio}/s{split}{speaker}/{name}")
                lines.append(f"<s> {text.upper()} </s> ({name})")
        (folder / "etc").mkdir(exist_ok=True)
        (folder / "etc" / f"an4_{split}.fileids").write_text("\n".join(ids) + "\n")
        (folder / "etc" / f"an4_{split}.transcription").write_text("\n".join(lines) + "\n")


def write_common_voice(folder: Path) -> None:
    generator = np.random.default_rng(6)
    (folder / "de" / "clips").mkdir(parents=True)
    for split, count in (("train", 12), ("dev", 4), ("test", 4)):
        rows = ["client_id\tpath\tsentence\tage\tgender"]
        for number in range(count):
            text, name = TEXTS[number % len(TEXTS)], f"common_voice_de_{split}{number}.mp3"
            soundfile.write(folder / "de" / "clips" / name, say(text, generator), RATE, format="MP3")
            gender = ("male_masculine", "female_feminine")[number % 2]
            rows.append(f"{split}{number // 2}\t{name}\t{text.capitalize()}.\ttwenties\t{gender}")
        (folder / "de" / f"{split}.tsv").write_text("\n".join(rows) + "\n")


def write_librispeech(folder: Path) -> None:
    generator = np.random.default_rng(2)
    for subset, speakers in (("train-clean-100", (11, 12, 13)), ("dev-clean", (21,)), ("test-clean", (31,))):
        for speaker in speakers:
            chapter = folder / subset / str(speaker) / "7"
            chapter.mkdir(parents=True)
            lines = []
            for index, text in enumerate(TEXTS[:5]):
                name = f"{speaker}-7-{index:04}"
                soundfile.write(chapter / f"{name}.flac", say(text, generator), RATE)
                lines.append(f"{name} {text.upper()}")
            (chapter / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")


def write_fsdd(folder: Path) -> None:
    generator = np.random.default_rng(3)
    (folder / "recordings").mkdir(parents=True)
    for speaker in ("ann", "bob"):
        for digit in range(10):
            for index in (4, 5, 10, 11):
                noise = 0.1 * generator.standard_normal(4000)
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", noise, 8000)


def write_yesno(folder: Path) -> None:
    generator = np.random.default_rng(4)
    folder.mkdir()
    for number in range(60):
        words = "_".join(f"{number:08b}")
        soundfile.write(folder / f"{words}.wav", 0.1 * generator.standard_normal(16000), 8000)


def write_speechocean762(folder: Path) -> None:
    """Write the speakers whom the README holds out, and as many others."""
    generator = np.random.default_rng(5)
    readme = lines_of(ROOT / "recipes" / "speechocean762" / "README.md")
    held_out = [word for line in readme for word in line if re.fullmatch(r"\d{4}", word)]
    for split, speakers in (
        ("train", [*held_out, *(f"T{name}" for name in held_out)]),
        ("test", ["E1", "E2"]),
    ):
        lines: dict[str, list[str]] = {name: [] for name in ("wav.scp", "text", "utt2spk")}
        for index, speaker in enumerate(speakers):
            path = folder / "wav" / speaker / f"{speaker}1.wav"
            path.parent.mkdir(parents=True)
            text = TEXTS[index % len(TEXTS)]
            soundfile.write(path, say(text, generator), RATE)
            lines["wav.scp"].append(f"{speaker}1\twav/{speaker}/{speaker}1.wav")
            lines["text"].append(f"{speaker}1\t{text.upper()}")
            lines["utt2spk"].append(f"{speaker}1 {speaker}")
        (folder / split).mkdir()
        for name, content in lines.items():
            (folder / split / name).write_text("\n".join(content) + "\n")
        ages = [f"{speaker} {6 + 20 * (index % 2)}" for index, speaker in enumerate(speakers)]
        (folder / split / "spk2age").write_text("\n".join(ages) + "\n")
    write_dictionary(folder.parent)
    (folder.parent / "sentences.txt").write_text("a b c\nab ca\nc b a\n")


def write_mini_librispeech(folder: Path) -> None:
    """Write the training part only, with the speakers whom the README holds out, and a pronouncing dictionary."""
    generator = np.random.default_rng(7)
    for speaker in ("19", "226", "3664", "6848", "41", "42", "43"):
        chapter = folder / "train-clean-5" / speaker / "7"
        chapter.mkdir(parents=True)
        lines = []
        for index, text in enumerate(TEXTS):
            soundfile.write(chapter / f"{speaker}-7-{index:04}.flac", say(text, generator), RATE)
            lines.append(f"{speaker}-7-{index:04} {text.upper()}")
        (chapter / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    write_dictionary(folder.parent)
    (folder.parent / "sentences.txt").write_text("a b c\nab ca\nc b a\n")


def write_dictionary(folder: Path) -> None:
    """Write a pronouncing dictionary."""
    (folder / "cmudict.dict").write_text("a AH0\nb B IY1\nc S IY1\ncab K AE1 B\nab AE1 B # first\n")


def write_english(folder: Path) -> None:
    """Write four corpora into one folder, where their layouts do not meet."""
    for write in (write_mini_librispeech, write_an4, write_speechocean762, write_fsdd):
        write(folder)


WRITERS = {
    "an4": write_an4,
    "common_voice": write_common_voice,
    "english": write_english,
    "fsdd": write_fsdd,
    "librispeech": write_librispeech,
    "mini_librispeech": write_mini_librispeech,
    "speechocean762": write_speechocean762,
    "yesno": write_yesno,
}


@pytest.mark.parametrize("recipe", WRITERS)
def test_recipe(recipe, workplace, capsys, monkeypatch):
    """Every line of the recipe's README, `asr` or a script beside it, works on the corpus's layout."""
    lines = lines_of(ROOT / "recipes" / recipe / "README.md")
    WRITERS[recipe](workplace / "corpus")
    published = {word for line in lines for word in line if word.startswith("/path/to")}
    replaced = dict.fromkeys(published, str(workplace / "corpus"))
    commands = dict.fromkeys(
        line[1] for line in lines if line[0] == "asr"
    )  # a stage of training may precede another
    assert [*commands][:3] == ["prepare", "train", "evaluate"]
    for line in lines:
        if line[0] == "asr":
            small = (
                "--data.max_seconds=30",
                "--loss.intermediate_layers=[]",
                "--run.warm_start=",
                "--loss.lexicon=",
            )
            run_all([line[1:]], replaced, small)
        else:
            assert line[0] == "python"
            monkeypatch.setattr(sys, "argv", line[1:])
            status = 0
            try:
                runpy.run_path(line[1], run_name="__main__")
            except SystemExit as done:
                status = done.code
            assert not status, line
    assert "WER" in capsys.readouterr().out


@pytest.fixture
def equipped(workplace):
    """A workplace with recordings, transcripts, manifests and a model, by the names that the pages use."""
    make_corpus(workplace / "my_audio", utterances=30)
    (workplace / "my_audio" / "all.jsonl").unlink()
    make_corpus(workplace / "recordings" / "inside", utterances=3)
    for name in ("speech.wav", "new_recording.wav", "spelled.wav"):
        soundfile.write(workplace / name, say("abc", np.random.default_rng(0)), RATE)
    call = np.stack([say("abc", np.random.default_rng(seed)) for seed in range(2)], axis=1)
    soundfile.write(workplace / "call.wav", call, RATE)
    for name in ("references.trn", "hypotheses.trn", "system_a.trn", "system_b.trn"):
        (workplace / name).write_text("".join(f"a b c {name[0]} (speaker-{i})\n" for i in range(9)))
    (workplace / "lexicon.txt").write_text(
        "".join(f"{word} {' '.join(word)}\n" for word in ("a", "b", "ab", "c"))
    )
    make_bundle().save("runs/mine/bundle")
    random_lm("words")[1].bundle.save("runs/lm/bundle")
    return workplace


def test_readme(equipped, capsys, monkeypatch):
    """README's own path: a folder of recordings with their texts, to a model, transcripts and scores."""
    commands = commands_of(ROOT / "README.md")
    assert {"prepare", "train", "evaluate", "transcribe", "score", "compare"} <= {
        command[0] for command in commands
    }
    for command in commands:
        if command[0] == "train":  # the page transcribes with a trained model before it trains this one
            shutil.rmtree("runs/mine")
        if is_at_hand(command):
            run_all([command])
        else:
            check_options(command, monkeypatch)
    assert len(list((equipped / "texts").rglob("*.txt"))) == 3


PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if commands_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, equipped, capsys, monkeypatch):
    """Every `asr` line of a page runs; training, which README's test does, is checked up to its configuration."""
    run_all([["prepare", "manifest", "my_audio", "-o", "data/mine"]])
    for command in commands_of(page):
        command = command[: command.index(">")] if ">" in command else command
        if is_at_hand(command) and command[0] != "train":
            run_all([command])
        else:
            check_options(command, monkeypatch)


WITH_PYTHON = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if python_of(page)
]


@pytest.mark.filterwarnings("ignore:left out for letters")  # of the pages' hotwords
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python(page, equipped):
    """The Python of a page runs from its first block to its last."""
    names = {"microphone": [np.zeros(RATE, np.float32)] * 2}
    for block in python_of(page):
        exec(block, names)
