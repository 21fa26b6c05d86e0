"""`asr info`, `asr models`, `asr completion`, and names that are misspelled."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_asr

import asr
from asr.bundle import PURPOSES
from asr.cli.main import COMMANDS
from asr.cli.parser import command_parser


def test_what_is_installed_and_computes(tmp_path, capsys):
    assert run_asr("info --json {tmp}/info.json", tmp=tmp_path) == 0
    printed = capsys.readouterr().out
    value = json.loads((tmp_path / "info.json").read_text())
    assert value["versions"]["asr"] == asr.__version__
    assert "torch" in value["computing"]["engine"]
    assert value["computing"]["kernels on the CPU"].startswith(("fused, ", "not available: "))
    for facts in value.values():
        for name, fact in facts.items():
            assert name in printed
            assert str(fact) in printed


def test_what_a_model_holds(capsys):
    assert run_asr("info an4 --json -") == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert "2.32 million parameters" in model["size"]
    assert model["recurrent layers"] == "3 of 160 lstm, two directions"
    assert "dev_wer 0.0478" in model["training"]
    assert model["language model"] == "none of its own"
    assert run_asr("info english --json -") == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert "4.52 million parameters, 9.1 MB" in model["size"]
    assert model["language model"].startswith("lm.bin, ")
    assert model["lexicon"].startswith("lexicon.txt, ")
    assert "lm_weight" in model["decoding"]
    assert run_asr("info an5") == 1
    assert "did you mean 'an4'" in capsys.readouterr().err


def test_models_that_come_with_asr(capsys):
    assert run_asr("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == asr.available_models() == sorted(PURPOSES)
    assert [line for line in lines if line.endswith("(used where no model is named)")] == lines[1:]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_options(shell, capsys):
    pytest.importorskip("shtab")
    assert run_asr(f"completion {shell}") == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--min-confidence" in script


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "transcribe --recursiv",
            "'--recursiv' is not an argument of asr transcribe (did you mean '--recursive'?)",
        ),
        ("align a b -f jsn", "there is no 'jsn' (did you mean 'json'?); expected tsv, json, srt, vtt, ctm"),
        ("lm biuld a -o b", "there is no 'biuld' (did you mean 'build'?)"),
        ("completion bsh", "there is no 'bsh' (did you mean 'bash'?)"),
    ],
)
def test_the_nearest_is_suggested(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_asr(line)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["align", "--help"], ["models"]])
def test_output_that_cannot_be_written_is_one_sentence(arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(asr.__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "asr", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert result.returncode == 1
    assert result.stderr.endswith("stopped: no space is left to write to (No space left on device)\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_it_sets(name):
    """Every option is explained, and no help text begins with a pronoun or a preposition."""
    parsers = [command_parser(name)[0]]
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.dest != "help":
                assert action.help, action.option_strings
                assert action.help.split()[0] not in ("of", "where", "what", "to", "the"), action.help
