import os

import pytest

from asr.files import replacing, sha256


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "sub" / "x.json"
    with replacing(path) as scratch:
        scratch.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as scratch:  # noqa: PT012
        scratch.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_links_and_pipes_are_written_through(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "pipe"):
        with replacing(tmp_path / name) as scratch:
            scratch.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    assert os.read(reader, 9) == b"new"
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_checksum(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf")
