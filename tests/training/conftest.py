"""A prepared corpus for the tests that train."""

import socket

import pytest
from helpers import prepare_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with recordings, their texts, and manifests cuts_train and cuts_dev in `cuts`."""
    return prepare_corpus(tmp_path_factory.mktemp("corpus"), 60)


@pytest.fixture
def free_port():
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
