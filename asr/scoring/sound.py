"""What a report lets people hear and see of an utterance: its audio, its spectrogram, what CTC made of it."""

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz
LEVEL_SECONDS = 0.02  # of audio whose level is taken together
NOISE, SPEECH = 0.1, 0.95  # quantiles of the levels

PIXELS_PER_SECOND = 130
IMAGE_HEIGHT, CURVES_HEIGHT, LINE_HEIGHT = 110, 70, 16  # pixels
FAINT = 0.02  # posterior below which a token is not drawn
NAMED = 0.2  # posterior from which its peak is named


def signal_to_noise(samples: np.ndarray, sample_rate: int) -> float | None:
    """Estimate the signal-to-noise ratio, in dB, of samples (time,): the loud parts' level above the quiet parts'.

    The 95th less the 10th percentile of the levels of 20 ms each, as NIST's STNR takes speech and noise from
    their histogram. None for digital silence and for less than ten such parts.

    >>> time = np.arange(16000) / 16000
    >>> tone = np.where(time < 0.5, np.sin(2 * np.pi * 440 * time), 0)
    >>> round(signal_to_noise(tone + 0.01 * np.random.default_rng(0).standard_normal(16000), 16000))
    37
    """
    width = round(LEVEL_SECONDS * sample_rate)
    count = len(samples) // width
    power = np.square(samples[: count * width], dtype=np.float64).reshape(count, width).mean(axis=1)
    power = power[power > 0]
    if len(power) < 10:
        return None
    noise, speech = np.quantile(10 * np.log10(power), [NOISE, SPEECH])
    return round(float(speech - noise), 1)


def audio_uri(samples: np.ndarray, sample_rate: int) -> str:
    """Pack samples (time,) into a data URI of Ogg Opus, some 3 kB a second, which every browser plays."""
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
    """Draw an utterance as SVG: its words in time, spectrogram, and tokens' posteriors.

    Arguments: features (frame, mel), log-mel; posteriors (frame, token), the blank first; tokens their names;
    words with their start and end in seconds; `seconds`, the utterance's length. Colors are the page's
    (CSS variables); a line of class "cursor" waits for the audio.
    """
    width = max(1, round(seconds * PIXELS_PER_SECOND))
    top = LINE_HEIGHT + 6
    bottom = top + IMAGE_HEIGHT + CURVES_HEIGHT
    parts = [
        f'<image href="{_png(features)}" x="0" y="{top}" width="{width}" height="{IMAGE_HEIGHT}" '
        f'preserveAspectRatio="none"/>',
        *(_word(*word, bottom) for word in words),
        *_curves(posteriors, tokens, width, bottom),
        *_axis(seconds, bottom),
        f'<line class="cursor" y1="0" y2="{bottom}" visibility="hidden"/>',
    ]
    spoken = ", ".join(f"{word} {start:.2f} to {end:.2f} s" for word, start, end in words)
    height = bottom + LINE_HEIGHT + 4
    return (
        f'<svg class="picture" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'data-rate="{PIXELS_PER_SECOND}"><title>{escape(f"Words heard: {spoken or None}")}</title>'
        f"{''.join(parts)}</svg>"
    )


def _word(word: str, start: float, end: float, bottom: int) -> str:
    left, right = start * PIXELS_PER_SECOND, end * PIXELS_PER_SECOND
    return (
        f'<path class="edge" d="M{left:.1f} 4V{bottom}M{right:.1f} 4V{bottom}"/>'
        f'<path class="span" d="M{left:.1f} 5H{right:.1f}"/>'
        f'<text class="word" x="{(left + right) / 2:.1f}" y="{LINE_HEIGHT + 2}">{escape(word)}</text>'
    )


def _curves(posteriors: np.ndarray, tokens: Sequence[str], width: int, bottom: int) -> list[str]:
    """Draw each token's posterior over the frames, the blank's behind the others, and name the peaks."""
    step = width / max(1, len(posteriors))
    room = CURVES_HEIGHT - 14  # names stand above the peaks
    curves, names = [], []
    for token in np.flatnonzero(posteriors.max(axis=0, initial=0.0) >= FAINT).tolist():
        curve = posteriors[:, token]
        ends = np.flatnonzero(np.diff(np.pad(curve >= FAINT, 1)))
        for start, end in ends.reshape(-1, 2).tolist():
            heights = [0.0, *curve[start:end].tolist(), 0.0]
            points = " ".join(
                f"{(start + offset - 0.5) * step:.1f},{bottom - room * height:.1f}"
                for offset, height in enumerate(heights)
            )
            curves.append(f'<polygon class="{"token" if token else "blank"}" points="{points}"/>')
            peak = start + int(curve[start:end].argmax())
            if token and curve[peak] >= NAMED:
                sure = "sure" if curve[peak] >= posteriors[peak].max() else "rival"
                x, y = (peak + 0.5) * step, bottom - room * curve[peak] - 3
                names.append(f'<text class="{sure}" x="{x:.1f}" y="{y:.1f}">{escape(tokens[token])}</text>')
    return curves + names


def _axis(seconds: float, bottom: int) -> list[str]:
    marks = [f'<path class="axis" d="M0 {bottom}H{seconds * PIXELS_PER_SECOND:.0f}"/>']
    for half in range(1, int(2 * seconds) + 1):
        x = half * PIXELS_PER_SECOND / 2
        marks.append(f'<path class="axis" d="M{x:.0f} {bottom}v4"/>')
        if half % 2 == 0:
            marks.append(f'<text class="time" x="{x:.0f}" y="{bottom + LINE_HEIGHT}">{half // 2} s</text>')
    return marks


def _png(features: np.ndarray) -> str:
    """Write log-mel (frame, mel) as a gray PNG, the louder the darker, two frames to a pixel."""
    pairs = features[: len(features) // 2 * 2].reshape(-1, 2, features.shape[1]).mean(axis=1)
    quiet, loud = np.quantile(pairs, [0.05, 0.995]) if pairs.size else (0.0, 1.0)
    gray = 255 - 255 * np.clip((pairs - quiet) / max(loud - quiet, 1e-6), 0, 1)
    pixels = gray.T[::-1].astype(np.uint8) // 8 * 8  # 32 grays are enough, and pack better
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", max(1, pixels.shape[1]), pixels.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
