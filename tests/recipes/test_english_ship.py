"""`recipes/english/ship.py`: what it copies, and what it writes into the model card."""

import json
import runpy
from pathlib import Path

import pytest
from helpers import make_bundle

from asr.bundle import LM_FILE, Bundle, store_decoding

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "english" / "ship.py"
CARD = "# english\n\n<!-- results begin -->\nold\n<!-- results end -->\nLicense\n"


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Give the script with a shipped bundle in a folder of the test, and without its commands."""
    shipped = tmp_path / "shipped" / "english"
    make_bundle().save(shipped)
    store_decoding(shipped, {"lm_weight": 0.5})
    (shipped / "README.md").write_text(CARD)
    monkeypatch.setattr("asr.bundle.BUNDLES", shipped.parent)
    names = runpy.run_path(str(SCRIPT))
    commands: list[str] = []

    def run(command):
        commands.append(command)
        return f"table {len(commands)}\n"

    names["main"].__globals__["run"] = run
    make_bundle().save(tmp_path / "bundle")
    (tmp_path / LM_FILE).write_bytes(b"lm")

    def main(*arguments):
        monkeypatch.setattr("sys.argv", ["ship.py", str(tmp_path / "bundle"), *arguments])
        return names["main"]()

    return main, shipped, commands


def test_the_model_is_copied_and_its_card_has_the_results(ship, tmp_path):
    main, shipped, commands = ship
    assert main("--lm", str(tmp_path / LM_FILE)) == 0
    assert (shipped / LM_FILE).read_bytes() == b"lm"
    assert Bundle.load(shipped).training["train_manifests"][0] == "data/mini_librispeech/cuts_train.jsonl.gz"
    assert commands[0].startswith("asr lm tune data/")
    card = (shipped / "README.md").read_text()
    assert card.startswith("# english\n\n<!-- results begin -->\n\n```\nasr evaluate data/mini")
    assert card.endswith("table 4\n\n<!-- results end -->\nLicense\n")
    assert "old" not in card
    assert all(f"```\n{command}\n```\n\ntable" in card for command in commands[1:])


def test_without_a_language_model_its_weights_stay(ship):
    main, shipped, commands = ship
    assert main() == 0
    assert json.loads((shipped / "config.json").read_text())["decoding"] == {"lm_weight": 0.5}
    assert not any(command.startswith("asr lm") for command in commands)


def test_a_card_without_marks_is_left_alone(ship, capsys):
    main, shipped, _ = ship
    (shipped / "README.md").write_text("mine\n")
    assert main() == 1
    assert "lacks the lines <!-- results begin -->" in capsys.readouterr().err
    assert (shipped / "README.md").read_text() == "mine\n"
