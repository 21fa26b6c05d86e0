"""The unattended GPU session: what it starts, stops and leaves out as time runs short, by a clock of the test's own."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from asr.cli import main as asr_main

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import gpu_session  # noqa: E402
from gpu_session import Result, Step, run_command, session, steps, write_results  # noqa: E402


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def machine():
    """A clock, and what runs a step as long as its command says."""
    clock = Clock()

    def run(step, seconds):
        needed = float(step.command)
        clock.now += min(needed, seconds)
        return (None if needed > seconds else 1 if step.name == "broken" else 0), (step.name,)

    return clock, run


def test_steps_are_stopped_at_their_bounds_and_left_out_at_the_end(machine):
    clock, run = machine
    planned = [
        Step("quick", "10", 20, 5),
        Step("broken", "10", 20, 5),
        Step("hanging", "1000", 60, 5),
        Step("long", "30", 60, 40),
        Step("last", "10", 60, 5),
    ]
    recorded = []
    results = session(planned, 100, run, lambda results: recorded.append(len(results)), clock)
    assert [(result.name, result.state, result.seconds) for result in results] == [
        ("quick", "ok", 10),
        ("broken", "failed", 10),
        ("hanging", "stopped", 60),
        ("long", "left out", 0),
        ("last", "ok", 10),
    ]
    assert recorded == [1, 2, 3, 4, 5]
    assert clock.now == 190


def test_no_step_outlasts_the_session(machine):
    clock, run = machine
    (result,) = session([Step("hanging", "1000", 600, 5)], 40, run, lambda results: None, clock)
    assert (result.state, clock.now) == ("stopped", 140)


def test_the_session_fits_nine_minutes_up_to_its_last_step_but_the_rest_of_the_table():
    assert sum(step.most for step in steps()[:5]) < 6 * 60
    assert all(step.least <= step.most for step in steps())
    assert len({step.name for step in steps()}) == len(steps())


def test_a_stopped_command_ends_with_its_children_and_keeps_what_it_printed(tmp_path):
    code = "import subprocess, sys; print('row 1'); subprocess.run(['sleep', '60'])"
    status, tail = run_command(Step("rows", f"-c {shlex.quote(code)}", 3, 1), 3, tmp_path)
    assert (status, tail) == (None, ("row 1",))
    status, tail = run_command(Step("broken", "-c 'raise SystemExit(3)'", 9, 1), 9, tmp_path)
    assert (status, tail) == (3, ())


def test_results_are_tables_in_markdown_and_json(tmp_path):
    (tmp_path / "table_512.txt").write_text("| a | b |\n")
    results = [Result("table_512", "stopped", 60.0, ("| a | b |",)), Result("tests", "left out", 0.0)]
    write_results(results, tmp_path)
    page = (tmp_path / "session.md").read_text()
    assert "| table_512 | stopped | 60 | / a / b / |" in page
    assert page.endswith("## table_512\n\n| a | b |\n")
    assert [row["state"] for row in json.loads((tmp_path / "session.json").read_text())] == [
        "stopped",
        "left out",
    ]


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.name)
def test_commands_name_files_and_options_that_exist(step, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in (step.command, step.rehearsal or step.command):
        words = shlex.split(command.format(data="data", out="out"))
        files = [word for word in words if word.startswith(("tests/", "scripts/", "recipes/"))]
        assert all((ROOT / name).is_file() for name in files)
        if words[:3] == ["-m", "asr", "train"]:
            assert asr_main(["train", *words[3:], "--print-config"]) == 0
        elif words[:2] == ["-m", "asr"]:
            with pytest.raises(SystemExit) as stopped:
                asr_main([*words[2:], "--help"])
            assert stopped.value.code == 0


def test_wheels_that_are_missing_are_named(tmp_path, monkeypatch, capsys):
    class Failed:
        returncode = 1

    monkeypatch.setattr(gpu_session.subprocess, "run", lambda *_, **__: Failed())
    assert gpu_session.fetch_wheels(tmp_path) == 1
    assert "no wheel was found of soundfile" in capsys.readouterr().err
