"""ffmpeg, for the audio that libsndfile cannot read: m4a, mp4, webm and the like."""

import codecs
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from asr.audio.containers import AudioFile
from asr.errors import AudioError

# What ffmpeg may take a file for. Playlists and the like, which name other files for it to open, are not among them.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,loas,matroska,mov,mp3,mpeg,mpegts,oga,ogg,"
    "oma,rm,tak,tta,voc,w64,wav,webm,wv,xwma"
)


def _text(beginning: bytes) -> str:
    """Return the first bytes of a file as text; "" for what is none."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)  # its last letter may be cut
    except UnicodeDecodeError:
        return ""
    return text if all(letter.isprintable() or letter.isspace() for letter in text) else ""


@contextmanager
def through_ffmpeg(file: AudioFile, name: str, reason: str, seconds: float | None) -> Iterator[int]:
    """Decode the first `seconds` (None: all) with ffmpeg: the descriptor of a temporary wav file of floats."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        file.seek(0)
        beginning = file.read(24)
        if text := _text(beginning):
            raise AudioError(f"{name} is no audio file: it begins with the text {text!r}")
        raise AudioError(
            f"{name} is no audio that soundfile can read ({reason}; it begins with {beginning!r}); "
            "if it is m4a, mp4, webm or the like, install ffmpeg"
        )
    span = [] if seconds is None else ["-t", str(seconds)]
    with tempfile.NamedTemporaryFile() as copy, tempfile.TemporaryFile() as wav:
        if isinstance(file, io.FileIO):
            path = file.name
        else:  # mp4 may keep its index at the end, out of a pipe's reach
            path = copy.name
            file.seek(0)
            shutil.copyfileobj(file, copy)
            copy.flush()
        options = ["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe"]
        options += ["-format_whitelist", FORMATS, *span]
        output = ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        command = [ffmpeg, *options, "-i", f"file:{path}", *output]
        done = subprocess.run(command, stdout=wav, stderr=subprocess.PIPE)
        log = done.stderr.decode(errors="replace").strip()
        if "matches no streams" in log:
            raise AudioError(f"{name} holds no audio track")
        if done.returncode != 0 or "ended prematurely" in log:
            last = log.splitlines()[-1] if log else f"exit status {done.returncode}"
            raise AudioError(f"{name} is no audio, or damaged: soundfile says {reason!r}, ffmpeg {last!r}")
        wav.seek(0)
        yield wav.fileno()
