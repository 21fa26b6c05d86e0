"""What a page lets people hear and see of an utterance: its audio, its spectrogram, what CTC made of it."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from asr.reports.render import render

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz
# Sound files that browsers play.
PLAYED = frozenset((".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm"))
PIXELS_PER_SECOND = 130
IMAGE_HEIGHT, CURVES_HEIGHT, LINE_HEIGHT = 110, 70, 16  # pixels
FAINT = 0.02  # posterior below which a token is not drawn
NAMED = 0.2  # posterior from which its peak is named


def audio_uri(samples: np.ndarray, sample_rate: int) -> str:
    """Return samples (time,) as a data URI of Ogg Opus, some 3 kB a second, which every browser plays."""
    import soundfile

    if sample_rate not in OPUS_RATES:
        import soxr

        samples, sample_rate = soxr.resample(samples, sample_rate, 24000), 24000
    packed = io.BytesIO()
    soundfile.write(packed, samples, sample_rate, format="OGG", subtype="OPUS")
    return f"data:audio/ogg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def picture(
    features: np.ndarray,
    posteriors: np.ndarray,
    tokens: Sequence[str],
    words: Sequence[tuple[str, float, float]],
    seconds: float,
) -> str:
    """Return an utterance as SVG: its words in time, spectrogram, and tokens' posteriors.

    Arguments: features (frame, mel), log-mel; posteriors (frame, token), the blank first; tokens their names;
    words with their start and end in seconds; `seconds`, the utterance's length. Colors are the page's
    (CSS variables); a line of class "cursor" waits for the audio.
    """
    width = max(1, round(seconds * PIXELS_PER_SECOND))
    top = LINE_HEIGHT + 6
    bottom = top + IMAGE_HEIGHT + CURVES_HEIGHT
    curves = list(_curves(posteriors, width, bottom))
    return render(
        "picture.svg",
        image=_png(features),
        image_height=IMAGE_HEIGHT,
        line=LINE_HEIGHT,
        pixels=PIXELS_PER_SECOND,
        width=width,
        top=top,
        bottom=bottom,
        words=words,
        curves=curves,
        peaks=[(tokens[curve["token"]], *curve["peak"]) for curve in curves if curve["peak"]],
        seconds=seconds,
    )


def _curves(posteriors: np.ndarray, width: int, bottom: int) -> Iterator[dict[str, Any]]:
    """Yield each stretch of frames in which a token is likely, the blank's before the others.

    A stretch is its token, its points, and its peak (x, y, whether no token is likelier there) where that is named.
    """
    step = width / max(1, len(posteriors))
    # The names stand above the peaks.
    height = CURVES_HEIGHT - 14
    for token in np.flatnonzero(posteriors.max(axis=0, initial=0.0) >= FAINT).tolist():
        curve = posteriors[:, token]
        ends = np.flatnonzero(np.diff(np.pad(curve >= FAINT, 1)))
        for start, end in ends.reshape(-1, 2).tolist():
            levels = [0.0, *curve[start:end].tolist(), 0.0]
            points = [((start + n - 0.5) * step, bottom - height * level) for n, level in enumerate(levels)]
            top = start + int(curve[start:end].argmax())
            peak = (
                (top + 0.5) * step,
                bottom - height * float(curve[top]) - 3,
                bool(curve[top] >= posteriors[top].max()),
            )
            named = token and curve[top] >= NAMED
            yield {"token": token, "points": points, "peak": peak if named else None}


def _png(features: np.ndarray) -> str:
    """Return log-mel (frame, mel) as the data URI of a gray PNG, the louder the darker, two frames to a pixel."""
    pairs = features[: len(features) // 2 * 2].reshape(-1, 2, features.shape[1]).mean(axis=1)
    quiet, loud = np.quantile(pairs, [0.05, 0.995]) if pairs.size else (0.0, 1.0)
    gray = 255 - 255 * np.clip((pairs - quiet) / max(loud - quiet, 1e-6), 0, 1)
    # 32 grays are enough, and pack better.
    pixels = gray.T[::-1].astype(np.uint8) // 8 * 8
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", max(1, pixels.shape[1]), pixels.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
