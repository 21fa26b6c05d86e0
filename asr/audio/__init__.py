"""Any audio file, bytes or stream becomes mono float32 samples at the model's rate."""

from asr.audio.files import AUDIO_SUFFIXES, audio_files, existing, files_in
from asr.audio.read import channel_count, load_audio, measure, read_header, stream_audio

__all__ = [
    "AUDIO_SUFFIXES",
    "audio_files",
    "channel_count",
    "existing",
    "files_in",
    "load_audio",
    "measure",
    "read_header",
    "stream_audio",
]
