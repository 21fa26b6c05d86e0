"""What ffmpeg says, told in other words; the audio that it decodes is in test_read."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asr.audio import load_audio
from asr.errors import AudioError

NO_AUDIO = """\
[in#0] Output #0
Stream map '0:a:0' matches no streams.
To ignore this, add a trailing '?' to the map.
"""


def test_a_video_without_audio(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "ffmpeg"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat >&2 <<'E'\n{NO_AUDIO}E\nexit 234\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    path = tmp_path / "silent.mp4"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(AudioError, match=r"silent.mp4 holds no audio track$"):
        load_audio(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("name", ["silent.mp4", "silent.mkv", "silent.avi"])
def test_a_video_without_audio_by_ffmpeg_itself(tmp_path: Path, name):
    path = tmp_path / name
    source = "-f lavfi -i color=c=black:s=64x64:d=1 -c:v mpeg4".split()
    subprocess.run(["ffmpeg", "-v", "error", *source, str(path)], check=True)
    with pytest.raises(AudioError, match=f"{name} holds no audio track$"):
        load_audio(path)
