"""A corpus prepared and a model trained once, through the command line, for every test here."""

import pytest
from helpers import make_corpus, train_arguments

from asr.cli import main


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with recordings, their texts, and manifests cuts_train and cuts_dev in `cuts`."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = make_corpus(folder / "audio", utterances=80)
    arguments = [
        "prepare",
        "manifest",
        str(manifest),
        "--output-dir",
        str(folder / "cuts"),
        "--dev-fraction",
        "0.2",
    ]
    assert main(arguments) == 0
    return folder


@pytest.fixture(scope="session")
def run_folder(corpus, tmp_path_factory):
    """What `asr train` left behind."""
    folder = tmp_path_factory.mktemp("runs") / "tones"
    assert main(train_arguments(corpus, folder, "--run.epochs=60")) == 0
    return folder


@pytest.fixture(scope="session")
def bundle(run_folder):
    return run_folder / "bundle"
