"""What a user reads when something is wrong: one or two lines, no traceback, a non-zero status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import make_corpus, run_asr, train_arguments

from asr.cli import main


def message_of(capsys, arguments, status=1):
    assert main(arguments) == status
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert 1 <= len(message.strip().splitlines()) <= 2, message
    return message


def test_unknown_command_suggests_the_nearest(capsys):
    assert "did you mean 'transcribe'" in message_of(capsys, ["transcrib"], status=2)


def test_missing_bundle(capsys, corpus):
    audio = str(corpus / "audio" / "utterance00.wav")
    assert "there is no bundle nowhere" in message_of(capsys, ["transcribe", audio, "--model", "nowhere"])


def test_bundle_with_a_file_missing(capsys, corpus, bundle, tmp_path):
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    audio = str(corpus / "audio" / "utterance00.wav")
    assert "lacks model.safetensors" in message_of(capsys, ["transcribe", audio, "--model", str(copy)])


def test_letters_that_the_locale_lacks_are_escaped(tmp_path):
    for name in ("reference.trn", "hypothesis.trn"):
        (tmp_path / name).write_text(f"мир {name[0]} (u1)\n", "utf-8")
    command = [sys.executable, "-m", "asr", "score", "reference.trn", "hypothesis.trn", "--worst", "1"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\u043c\\u0438\\u0440 r" in result.stdout


def test_debug_shows_the_traceback(capsys):
    assert main(["align", "x.wav", "abc", "--model", "nowhere", "--debug"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.strip().splitlines()[-1].startswith("asr align: ")


def test_misspelled_key_in_a_configuration(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("model:\n  hidden_sise: 3\n")
    message = message_of(capsys, ["train", "--config", str(tmp_path / "config.yaml")])
    assert "'model.hidden_sise' (did you mean 'model.hidden_size'?)" in message


def test_impossible_model(capsys, corpus, tmp_path):
    message = message_of(capsys, train_arguments(corpus, tmp_path / "run", "--model.cell=lstmm"))
    assert "model: unknown cell 'lstmm'; there are lstm" in message


def test_missing_manifest(capsys, tmp_path):
    message = message_of(
        capsys, ["train", f"--data.train={tmp_path}/cuts.jsonl.gz", f"--run.folder={tmp_path}/run"]
    )
    assert "cuts.jsonl.gz" in message


def test_a_run_is_not_overwritten_unasked(capsys, corpus, run_folder):
    message = message_of(capsys, train_arguments(corpus, run_folder, "--run.epochs=1"))
    assert "--resume continues it, --overwrite replaces it" in message


def test_dev_letters_outside_the_alphabet_are_named(capsys, corpus, tmp_path):
    folder = tmp_path / "dev"
    manifest = make_corpus(folder, utterances=4, seed=9)
    manifest.write_text(manifest.read_text().replace('"text": "', '"text": "ж', 1))
    line = "prepare manifest {manifest} --output-dir {folder} --split dev --dev-fraction 0"
    assert run_asr(line, manifest=manifest, folder=folder) == 0
    arguments = train_arguments(
        corpus, tmp_path / "run", "--run.epochs=1", f"--data.dev={folder}/cuts_dev.jsonl.gz"
    )
    assert main(arguments) == 0  # they count as errors
    errors = capsys.readouterr().err
    assert "1 letters" in errors
    assert "ж" in errors
    assert (tmp_path / "run" / "bundle" / "config.json").is_file()


def test_help_imports_nothing_heavy():
    heavy = "torch numpy lhotse lightning soundfile jiwer".split()
    code = f"import sys; from asr.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_transcribing_imports_neither_lightning_nor_lhotse(corpus, bundle):
    audio = corpus / "audio" / "utterance00.wav"
    code = (
        f"import sys; from asr.cli import main; main(['transcribe', {str(audio)!r}, '--model', {str(bundle)!r}]); "
        "print([m for m in ('lightning', 'lhotse', 'jsonargparse', 'sentencepiece', 'librosa') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_closed_pipe_is_no_traceback(corpus, bundle):
    command = f"{sys.executable} -m asr transcribe {corpus}/audio --model {bundle} | head -n 1"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in finished.stderr
    assert len(finished.stdout.splitlines()) == 1


@pytest.mark.parametrize("command", ["prepare", "train", "transcribe", "evaluate", "score", "compare"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: asr {command}" in capsys.readouterr().out
