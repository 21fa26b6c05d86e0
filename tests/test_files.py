import pytest

from asr.files import replacing, sha256


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "sub" / "x.json"
    with replacing(path) as scratch:
        scratch.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as scratch:
        scratch.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_checksum(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf")
