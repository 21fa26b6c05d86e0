import io
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import AUDIO_SUFFIXES, channel_count, load_audio, stream_audio
from asr.errors import AudioError

RATE = 16000


def tone(seconds=1.0, rate=RATE, hertz=440.0, peak=0.5):
    return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds=1.0, rate=RATE, peak=0.5):
    return np.random.default_rng(0).uniform(-peak, peak, round(seconds * rate)).astype(np.float32)


def encoded(samples, rate=RATE, **how) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


LOSSLESS = [
    ({"format": "WAV", "subtype": "PCM_U8"}, 1 / 128),
    ({"format": "WAV", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "WAV", "subtype": "PCM_24"}, 1 / 2**23),
    ({"format": "WAV", "subtype": "PCM_32"}, 1e-7),
    ({"format": "WAV", "subtype": "FLOAT"}, 0),
    ({"format": "WAV", "subtype": "DOUBLE"}, 0),
    ({"format": "FLAC", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "NIST", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "AIFF", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "RF64", "subtype": "PCM_16"}, 1 / 2**15),
]
LOSSY = [
    {"format": "WAV", "subtype": "ULAW"},
    {"format": "OGG", "subtype": "VORBIS"},
    {"format": "OGG", "subtype": "OPUS"},
    {"format": "MP3"},
]


@pytest.mark.parametrize(("how", "step"), LOSSLESS, ids=lambda value: str(value))
def test_samples_of_lossless_formats_are_those_written(tmp_path, how, step):
    path = tmp_path / "audio.bin"
    written = noise()
    path.write_bytes(encoded(written, **how))
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        read = load_audio(source)
        assert read.dtype == np.float32
        assert read.shape == written.shape
        np.testing.assert_allclose(read, written, rtol=0, atol=step)


@pytest.mark.parametrize("how", LOSSY, ids=str)
def test_lossy_formats_keep_a_tone(how):
    written = tone()
    read = load_audio(encoded(written, **how))
    assert read.shape == written.shape
    assert np.corrcoef(read[2000:-2000], written[2000:-2000])[0, 1] > 0.999


def test_a_file_is_read_whatever_its_name_says(tmp_path):
    path = tmp_path / "speech.raw"  # soundfile takes this name for headerless audio and asks for its rate
    path.write_bytes(encoded(tone(), format="WAV"))
    assert load_audio(path).shape == (RATE,)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_other_rates_are_resampled_to_the_same_tone(rate):
    read = load_audio(encoded(tone(1.0, rate), rate, format="WAV", subtype="FLOAT"))
    assert abs(len(read) - RATE) <= 1
    np.testing.assert_allclose(read[800:-800], tone()[800 : len(read) - 800], atol=1e-4)


def test_resampling_is_band_limited():
    above = encoded(tone(1.0, 44100, hertz=10000), 44100, format="WAV", subtype="FLOAT")
    assert np.abs(load_audio(above)[800:-800]).max() < 1e-4  # an alias would sound at 6 kHz


def test_channels_are_averaged():
    left, right = tone(hertz=300), tone(hertz=700)
    read = load_audio(encoded(np.stack([left, right], 1), format="WAV", subtype="FLOAT"))
    np.testing.assert_allclose(read, (left + right) / 2, atol=1e-7)


def test_stereo_at_44100_in_many_blocks():
    two = np.stack([tone(20.0, 44100), np.zeros(20 * 44100, np.float32)], 1)
    read = load_audio(encoded(two, 44100, format="FLAC"))
    np.testing.assert_allclose(read[800:-800], tone(20.0)[800:-800] / 2, atol=1e-4)


def test_what_the_resampler_overshoots_is_clipped():
    square = np.sign(tone(1.0, 8000, hertz=100, peak=1.0) + 1e-9).astype(np.float32)
    read = load_audio(encoded(square, 8000, format="WAV", subtype="FLOAT"))
    assert np.abs(read).max() == 1.0
    assert (np.abs(read) == 1.0).mean() > 0.1


def test_silence_is_zeros():
    for rate in (RATE, 44100):
        read = load_audio(encoded(np.zeros(rate, np.float32), rate, format="WAV"))
        assert not read.any()


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(
    "how", [{"format": "WAV", "subtype": "FLOAT"}, {"format": "FLAC"}, {"format": "MP3"}]
)
def test_a_window_is_that_part_of_the_whole(tmp_path, rate, how):
    path = tmp_path / "long.audio"
    path.write_bytes(encoded(noise(6.0, rate), rate, **how))
    whole = load_audio(path)
    for offset, duration in [
        (0.0, 1.0),
        (0.01, 0.5),
        (1.2345, 2.0),
        (3.3333, 1.1111),
        (5.5, 9.0),
        (2.5, None),
    ]:
        window = load_audio(path, offset=offset, duration=duration)
        start = round(offset * RATE)
        expected = whole[start:][: None if duration is None else round(duration * RATE)]
        assert window.shape == expected.shape
        np.testing.assert_allclose(window, expected, atol=1e-6)


def test_a_window_reads_only_its_part(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(noise(60.0), format="WAV"))
    read = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, n, *rest, **how: read.append(n) or original(self, n, *rest, **how),
    )
    load_audio(path, offset=30.0, duration=1.0)
    assert sum(read) <= 1.2 * RATE


def test_impossible_windows_are_refused(tmp_path):
    audio = encoded(tone(2.0), format="WAV")
    with pytest.raises(AudioError, match=r"<bytes> holds no audio from 2\.5 s on"):
        load_audio(audio, offset=2.5)
    for wrong in ({"offset": -1.0}, {"duration": 0.0}, {"sample_rate": 0}):
        with pytest.raises(ValueError, match="cannot read"):
            load_audio(audio, **wrong)


class TestStreams:
    def test_a_pipe(self):
        audio = encoded(tone(5.0), format="WAV")
        reader, writer = os.pipe()

        def feed():
            with os.fdopen(writer, "wb") as file:
                file.write(audio)

        feeder = threading.Thread(target=feed)
        feeder.start()
        with os.fdopen(reader, "rb") as pipe:
            assert load_audio(pipe).shape == (5 * RATE,)
        feeder.join()

    def test_a_named_pipe(self, tmp_path):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        feeder = threading.Thread(target=lambda: path.write_bytes(encoded(tone(), format="FLAC")))
        feeder.start()
        assert load_audio(path).shape == (RATE,)
        feeder.join()

    def test_an_open_file_is_named_in_errors(self, tmp_path):
        path = tmp_path / "empty.wav"
        path.touch()
        with path.open("rb") as file, pytest.raises(AudioError, match=r"empty\.wav is empty"):
            load_audio(file)
        with pytest.raises(AudioError, match="<stream> is empty"):
            load_audio(io.BytesIO())

    def test_a_text_stream_is_a_programming_error(self):
        with pytest.raises(TypeError, match="binary"):
            load_audio(io.StringIO("text"))  # type: ignore[arg-type]

    @pytest.mark.parametrize("data_size", [0xFFFFFFFF, 0x7FFFF000])
    def test_a_wav_header_written_before_the_length_was_known(self, data_size):
        audio = bytearray(encoded(tone(), format="WAV", subtype="PCM_16"))
        audio[40:44] = data_size.to_bytes(4, "little")
        assert load_audio(bytes(audio)).shape == (RATE,)

    def test_a_flac_header_written_before_the_length_was_known(self):
        audio = bytearray(encoded(noise(3.0), format="FLAC"))
        whole = load_audio(bytes(audio))
        audio[21] &= 0xF0  # the low 36 bits of bytes 21 to 25 count the samples; 0 is unknown
        audio[22:26] = bytes(4)
        np.testing.assert_array_equal(load_audio(bytes(audio)), whole)
        np.testing.assert_array_equal(
            load_audio(bytes(audio), offset=1.0, duration=0.5), whole[RATE:][: RATE // 2]
        )

    def test_an_mp3_without_its_length_is_read_to_the_end(self, tmp_path):
        # Quieter later: the first frames' bit rate is not that of the rest, so libsndfile estimates wrongly.
        samples = np.concatenate([noise(10.0, peak=0.9), tone(20.0, peak=0.01)])
        named = encoded(samples, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
        assert named.count(b"Xing") + named.count(b"Info") == 1
        nameless = named.replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
        with soundfile.SoundFile(io.BytesIO(nameless)) as sound:
            estimate = sound.frames
        assert abs(estimate - len(samples)) > RATE
        tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + nameless
        path = tmp_path / "stream.mp3"
        path.write_bytes(nameless)
        for source in (nameless, path, tagged):
            assert 0 <= len(load_audio(source)) - len(samples) < 4000  # the encoder's padding
        np.testing.assert_array_equal(
            load_audio(path, offset=2.0, duration=1.0), load_audio(path)[2 * RATE : 3 * RATE]
        )


def refused(source, tmp_path=None) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    message = str(caught.value)
    assert message.count("\n") <= 1
    if isinstance(source, Path):
        assert str(source) in message
    return message


TRUNCATED = [
    {"format": "WAV", "subtype": "PCM_16"},
    {"format": "WAV", "subtype": "FLOAT"},
    {"format": "WAV", "subtype": "ULAW"},
    {"format": "WAVEX", "subtype": "PCM_24"},
    {"format": "RF64", "subtype": "PCM_16"},
    {"format": "W64", "subtype": "PCM_16"},
    {"format": "AIFF", "subtype": "PCM_16"},
    {"format": "AU", "subtype": "PCM_16"},
    {"format": "NIST", "subtype": "PCM_16"},
    {"format": "FLAC"},
    {"format": "OGG", "subtype": "VORBIS"},
    {"format": "OGG", "subtype": "OPUS"},
    {"format": "MP3"},
]


class TestBadInput:
    @pytest.fixture(autouse=True)
    def without_ffmpeg(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))

    @pytest.mark.parametrize("how", TRUNCATED, ids=str)
    @pytest.mark.parametrize("share", [0.5, 0.98])
    def test_truncated(self, tmp_path, how, share):
        audio = encoded(noise(20.0), **how)
        path = tmp_path / "cut.wav"
        path.write_bytes(audio)
        assert load_audio(path).shape == (20 * RATE,)
        path.write_bytes(audio[: int(share * len(audio))])
        assert "truncated" in refused(path)

    def test_missing(self, tmp_path):
        assert "there is no file" in refused(tmp_path / "nowhere.wav")

    def test_a_link_that_leads_nowhere(self, tmp_path):
        (tmp_path / "annexed.wav").symlink_to("objects/gone.wav")
        assert "annexed.wav is a link to objects/gone.wav, which does not exist" in refused(
            tmp_path / "annexed.wav"
        )

    def test_a_folder(self, tmp_path):
        assert "is a folder" in refused(tmp_path)

    def test_no_permission(self, tmp_path, monkeypatch):
        def forbidden(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("asr.audio.decoder.open", forbidden, raising=False)  # root may read anything
        assert "permission denied" in refused(tmp_path / "secret.wav")

    def test_empty(self, tmp_path):
        path = tmp_path / "empty.wav"
        path.touch()
        assert "is empty (0 bytes)" in refused(path)

    def test_text(self, tmp_path):
        path = tmp_path / "notes.wav"
        path.write_text("This is not audio.\n" * 100)
        message = refused(path)
        assert "no audio" in message
        assert "it begins with the text 'This is not audio." in message

    @pytest.mark.parametrize("container", ["WAV", "NIST", "AIFF"])
    def test_a_header_without_samples(self, tmp_path, container):
        path = tmp_path / "header.wav"
        path.write_bytes(encoded(np.zeros(0, np.float32), format=container))
        assert "holds no audio" in refused(path)

    def test_part_of_a_header(self, tmp_path):
        path = tmp_path / "header.wav"
        path.write_bytes(encoded(tone(), format="WAV")[:20])
        assert "fmt" in refused(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, tmp_path, value):
        samples = tone()
        samples[777] = value
        path = tmp_path / "broken.wav"
        path.write_bytes(encoded(samples, 8000, format="WAV", subtype="FLOAT"))
        assert "NaN or infinite" in refused(path)

    def test_integers_stored_as_floats(self, tmp_path):
        path = tmp_path / "loud.wav"
        path.write_bytes(encoded(tone(peak=20000), format="WAV", subtype="FLOAT"))
        message = refused(path)
        assert "up to 20000" in message or "up to 19999" in message
        assert "[-1, 1]" in message

    def test_damaged_inside(self, tmp_path):
        audio = bytearray(encoded(noise(5.0), format="FLAC"))
        audio[len(audio) // 2 : len(audio) // 2 + 9000] = bytes(9000)
        path = tmp_path / "damaged.flac"
        path.write_bytes(bytes(audio))
        assert "damaged" in refused(path)

    def test_what_takes_ffmpeg(self, tmp_path):
        path = tmp_path / "song.m4a"
        path.write_bytes(b"\0\0\0\x1cftypM4A \0\0\x02\0" + bytes(1000))
        assert "install ffmpeg" in refused(path)


class TestFfmpeg:
    @pytest.fixture
    def stand_in(self, tmp_path, monkeypatch):
        """A program named ffmpeg that notes its arguments and answers with `answer.wav`."""
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "ffmpeg"
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/arguments"\n'
            f'cat "{folder}/answer.wav" || {{ echo "Invalid data found" >&2; exit 183; }}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return folder

    def test_reads_what_soundfile_cannot(self, stand_in, tmp_path):
        two = np.stack([tone(3.0, 48000), tone(3.0, 48000)], 1)
        (stand_in / "answer.wav").write_bytes(encoded(two, 48000, format="WAV", subtype="FLOAT"))
        path = tmp_path / "clip with space.m4a"
        path.write_bytes(b"something else")
        read = load_audio(path)
        np.testing.assert_allclose(read[800:-800], tone(3.0)[800:-800], atol=1e-4)
        arguments = (stand_in / "arguments").read_text().splitlines()
        assert f"file:{path}" in arguments
        assert "-t" not in arguments
        np.testing.assert_allclose(load_audio(path, offset=1.5, duration=1.0), read[24000:40000], atol=1e-6)
        arguments = (stand_in / "arguments").read_text().splitlines()
        assert float(arguments[arguments.index("-t") + 1]) >= 2.5

    def test_bytes_reach_it_as_a_file(self, stand_in):
        (stand_in / "answer.wav").write_bytes(encoded(tone(), format="WAV", subtype="FLOAT"))
        assert load_audio(b"something else").shape == (RATE,)
        assert any(a.startswith("file:") for a in (stand_in / "arguments").read_text().splitlines())

    def test_what_neither_reads(self, stand_in, tmp_path):
        path = tmp_path / "notes.wav"
        path.write_text("This is not audio.\n" * 100)
        message = refused(path)
        assert "ffmpeg" in message
        assert "Invalid data found" in message or "No such file" in message

    @pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
    @pytest.mark.parametrize("suffix", ["m4a", "mp4", "webm", "mka"])
    def test_the_real_one(self, tmp_path, suffix):
        import subprocess

        source, path = tmp_path / "source.wav", tmp_path / f"clip.{suffix}"
        source.write_bytes(encoded(tone(6.0), format="WAV"))
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", source, path], check=True)
        whole = load_audio(path)
        assert abs(len(whole) - 6 * RATE) < 2000
        assert np.abs(np.fft.rfft(whole[:RATE])).argmax() == 440
        np.testing.assert_array_equal(load_audio(path.read_bytes()), whole)
        window = load_audio(path, offset=3.3, duration=1.0)
        np.testing.assert_allclose(window, whole[52800:68800], atol=1e-6)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "damaged" in refused(path)


def test_suffixes_are_lower_case_and_cover_the_formats():
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in AUDIO_SUFFIXES)
    assert {".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".m4a", ".mp4", ".webm"} <= AUDIO_SUFFIXES


class TestRealSpeech:
    def test_an4_sphere(self, shared_data):
        path = shared_data / "an4/wav/an4_clstk/fash/an251-fash-b.sph"
        read = load_audio(path)
        assert read.shape == (16000,)  # its header's sample_count
        assert read.min() == -1060 / 32768  # its header's sample_min

    def test_librispeech_flac(self, shared_data):
        path = sorted((shared_data / "LibriSpeech").rglob("*.flac"))[0]
        read = load_audio(path)
        assert read.shape == (soundfile.info(path).frames,)
        assert 0.01 < np.abs(read).max() <= 1.0

    def test_opus_and_eight_kilohertz(self, shared_data):
        for path, rate in [
            (next((shared_data / "speechocean762").rglob("*.ogg")), None),
            (next((shared_data / "fsdd/recordings").glob("*.wav")), 8000),
        ]:
            info = soundfile.info(path)
            assert rate in (None, info.samplerate)
            assert len(load_audio(path)) == pytest.approx(info.duration * RATE, abs=2)


@pytest.mark.parametrize("rate", [16000, 44100, 8000])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_blocks_are_the_whole(rate, form, tmp_path):
    generator = np.random.default_rng(1)
    path = tmp_path / f"a.{form.lower()}"
    soundfile.write(path, 0.1 * generator.standard_normal((7 * rate, 2)), rate, format=form)
    blocks = list(stream_audio(path, 16000, seconds=1.5))
    assert [len(block) for block in blocks[:-1]] == [24000] * (len(blocks) - 1)
    np.testing.assert_allclose(np.concatenate(blocks), load_audio(path, 16000), atol=1e-6)


def test_blocks_of_an_mp3_whose_length_no_header_tells(tmp_path):
    """Two of different bit rates, one behind the other: the first frame's rate foretells a wrong length."""
    generator = np.random.default_rng(2)
    content = b""
    for amplitude, level in ((0.0, 0.9), (0.3, 0.1)):
        part = tmp_path / "part.mp3"
        samples = amplitude * generator.standard_normal(16000 * 4)
        soundfile.write(part, samples, 16000, format="MP3", compression_level=level, bitrate_mode="CONSTANT")
        content += part.read_bytes().replace(b"Xing", b"\0\0\0\0").replace(b"Info", b"\0\0\0\0")
    path = tmp_path / "joined.mp3"
    path.write_bytes(content)
    whole = load_audio(path, 16000)
    assert len(whole) > 7.9 * 16000
    assert np.array_equal(np.concatenate(list(stream_audio(path, 16000, seconds=1.0))), whole)


def test_blocks_come_until_the_damage(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(3).standard_normal(16000 * 40), 16000)
    path.write_bytes(path.read_bytes()[:-200_000])
    blocks = stream_audio(path, 16000, seconds=1.0)
    assert len(next(blocks)) == 16000
    with pytest.raises(AudioError, match=r"a\.flac is truncated"):
        list(blocks)
    with pytest.raises(AudioError, match="there is no file"):
        next(stream_audio(tmp_path / "none.wav"))


@pytest.mark.parametrize(
    "how",
    [
        {"format": "WAV", "subtype": "PCM_16"},
        {"format": "AIFF", "subtype": "PCM_16"},
        {"format": "FLAC", "subtype": "PCM_16"},
        {"format": "NIST", "subtype": "PCM_16"},
        {"format": "OGG", "subtype": "VORBIS"},
    ],
)
def test_what_comes_before_the_damage_can_be_kept(how):
    content = encoded(noise(20.0), **how)
    content, damage = content[: round(0.6 * len(content))], []
    samples = np.concatenate(list(stream_audio(content, RATE, 7.0, on_damage=damage.append)))
    assert 11.0 < len(samples) / RATE < 12.1
    np.testing.assert_allclose(
        samples, load_audio(encoded(noise(20.0), **how), RATE)[: len(samples)], atol=1e-6
    )
    assert "truncated" in str(damage[0])


def test_sound_audio_has_no_damage_to_report():
    damage = []
    samples = list(stream_audio(encoded(tone(3.0), format="FLAC"), RATE, on_damage=damage.append))
    assert len(np.concatenate(samples)) == 3 * RATE
    assert not damage


def test_what_has_nothing_to_keep_is_refused():
    for content in (b"", b"no audio", encoded(np.array([np.nan] * 99), format="WAV", subtype="FLOAT")):
        with pytest.raises(AudioError):
            list(stream_audio(content, RATE, on_damage=lambda error: None))


def test_channels_are_counted():
    assert channel_count(encoded(np.zeros((99, 3)), format="WAV")) == 3
    with pytest.raises(AudioError, match="no audio"):
        channel_count(b"nothing")
