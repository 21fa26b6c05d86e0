"""What `import asr` offers: to people, to `dir` and `help`, and to type checkers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asr

STUB = Path(asr.__file__).with_suffix(".pyi")


def test_every_name_can_be_seen_and_used():
    assert set(asr.__all__) == set(dir(asr))
    assert len(asr.__all__) == 19
    for name in asr.__all__:
        assert getattr(asr, name) is not None


def test_nothing_is_reported_to_the_makers_of_onnxruntime():
    script = "import os, asr; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, found in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        environment = {
            name: os.environ[name] for name in os.environ if name != "ORT_DISABLE_TELEMETRY"
        } | given
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == found


def test_the_stub_offers_the_same_names_from_the_same_modules():
    homes = {
        alias.asname: node.module
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == asr._HOMES | {"__version__": "asr.version"}


@pytest.mark.parametrize("name", [name for name in asr.__all__ if name != "__version__"])
def test_every_name_has_an_example(name):
    assert ">>> " in getattr(asr, name).__doc__


def test_functions_are_not_hidden_by_modules_of_their_names():
    """A submodule that is imported becomes an attribute of its package."""
    modules = {path.stem for path in STUB.parent.iterdir()}
    assert not modules & set(asr.__all__)


def test_importing_takes_nothing_heavy():
    code = "import asr, sys; print(sorted({'numpy', 'torch', 'soundfile'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'transcibe'"):
        _ = asr.transcibe
