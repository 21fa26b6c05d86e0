"""A run's folder belongs to one process at a time."""

import sys

import pytest

from asr.errors import AsrError
from asr.training.run_folder import alone_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody is kept out on Windows")


def test_a_second_process_is_kept_out_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "run"
    with alone_in(folder):
        (folder / "checkpoint").touch()
        with pytest.raises(AsrError, match=r"another process is training in .*run; wait"), alone_in(folder):
            raise AssertionError
    with alone_in(folder):
        pass
    assert (folder / "checkpoint").exists()


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), alone_in(tmp_path / "run"):
        raise KeyError
    assert not (tmp_path / "run").exists()
    with alone_in(tmp_path):  # which was there before
        pass
    assert tmp_path.exists()


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(AsrError, match="cannot write to the run folder"), alone_in(tmp_path / "run"):
        pass
