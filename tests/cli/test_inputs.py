"""What `asr transcribe` makes of folders: links that lead nowhere and subfolders are not passed over in silence."""

import logging

from asr.cli.inputs import find_audio


def test_links_that_lead_nowhere_are_left_to_be_reported(tmp_path):
    (tmp_path / "there.wav").touch()
    (tmp_path / "annexed.wav").symlink_to("../.git/annex/objects/gone.wav")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    for given in (str(tmp_path), f"{tmp_path}/*.wav"):
        found, failures = find_audio([given])
        assert ([*found], failures) == ([f"{tmp_path}/annexed.wav", f"{tmp_path}/there.wav"], [])


def test_skipped_subfolders_are_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "asr")
    (tmp_path / "day2").mkdir()
    for name in ("one.wav", "day2/two.wav", "day2/three.flac", "day2/notes.txt"):
        (tmp_path / name).touch()
    found, failures = find_audio([str(tmp_path)])
    assert ([*found], failures) == ([f"{tmp_path}/one.wav"], [])
    assert caplog.messages == [
        f"{tmp_path}: audio files in subfolders (2) are skipped; --recursive reads them, too"
    ]
    assert len(find_audio([str(tmp_path)], recursive=True)[0]) == 3
    assert len(caplog.messages) == 1
