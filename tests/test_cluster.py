"""Transcribing elsewhere and on many machines: shards, an S3 stand-in, Ray."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, make_bundle, make_corpus, run_asr

from asr.cli import main

fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")

from asr.cluster import Groups, Outcome, Task, Transcriber, groups_of, run_here  # noqa: E402
from asr.errors import AsrError  # noqa: E402
from asr.remote import filesystem, read, write  # noqa: E402


@pytest.fixture
def model(tmp_path):
    make_bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def audio(tmp_path):
    make_corpus(tmp_path / "audio", utterances=12)
    for path in (tmp_path / "audio").iterdir():
        if path.suffix != ".wav":
            path.unlink()
    return tmp_path / "audio"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()
    }


def test_shards_do_everything_once(audio, model, tmp_path, capsys):
    line = "transcribe {audio} --model {model} -o {out} -f txt srt"
    assert run_asr(line, audio=audio, model=model, out=tmp_path / "whole") == 0
    whole = contents(tmp_path / "whole")
    sizes = []
    for index in (1, 2, 3):
        out = tmp_path / "parts"
        before = len(contents(out)) if out.exists() else 0
        assert run_asr(line + f" --shard {index}/3", audio=audio, model=model, out=out) == 0
        sizes.append(len(contents(out)) - before)
    parts = contents(tmp_path / "parts")
    whole.pop(".asr-origins.jsonl")
    parts.pop(".asr-origins.jsonl")
    assert parts == whole
    assert min(sizes) > 0
    # A file keeps its part wherever its folder lies.
    (tmp_path / "moved").mkdir()
    audio.rename(tmp_path / "moved" / "audio")
    again = tmp_path / "again"
    assert run_asr(line + " --shard 1/3", audio=tmp_path / "moved" / "audio", model=model, out=again) == 0
    assert len(contents(again)) == sizes[0]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_refused(shard, audio, capsys):
    with pytest.raises(SystemExit):
        main(["transcribe", str(audio), f"--shard={shard}"])
    assert "expected such as 3/8" in capsys.readouterr().err


def test_elsewhere_as_here(audio, model, tmp_path, capsys):
    """Files in memory:// give what the same files give here; what is done is skipped; what fails is reported."""
    fs, _ = filesystem("memory://audio")
    fs.store.clear()
    for path in audio.iterdir():
        fs.pipe_file(f"/audio/{path.name}", path.read_bytes())
    fs.pipe_file("/audio/broken.wav", b"no audio")
    fs.pipe_file("/audio/notes.txt", b"no audio either")
    line = "transcribe memory://audio --model {model} -o memory://texts -f txt json --failures {failures}"
    assert run_asr(line, model=model, failures=tmp_path / "failures") == 1
    assert "1 of 13 failed" in capsys.readouterr().err
    (failure,) = map(json.loads, (tmp_path / "failures").read_text().splitlines())
    assert (
        failure["source"] == "memory:///audio/broken.wav" or failure["source"] == "memory://audio/broken.wav"
    )
    assert (
        run_asr("transcribe {audio} --model {model} -o {out}", audio=audio, model=model, out=tmp_path / "out")
        == 0
    )
    texts = {Path(name).name: fs.cat_file(name) for name in fs.find("/texts")}
    assert len(texts) == 24
    for path in (tmp_path / "out").glob("*.txt"):
        assert texts[path.name] == path.read_bytes()
    assert json.loads(texts["utterance00.json"])["file"].endswith("audio/utterance00.wav")
    # The second run does only what is missing.
    fs.rm("/texts/utterance03.txt")
    stamps = {name: fs.created(name) for name in fs.find("/texts")}
    assert run_asr(line, model=model, failures=tmp_path / "failures") == 1
    assert "11 of 13 have outputs already" in capsys.readouterr().err
    assert fs.exists("/texts/utterance03.txt")
    assert {name: fs.created(name) for name in stamps} == stamps


def test_files_by_https(audio, model, tmp_path):
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    pytest.importorskip("aiohttp", reason="the extra remote is not installed")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(audio))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        line = "transcribe {url}/utterance00.wav {url}/nothing.wav --model {model} -o {out}"
        assert run_asr(line, url=url, model=model, out=tmp_path / "out") == 1
        server.shutdown()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["utterance00.txt"]


def test_what_cannot_be_done_elsewhere(audio, capsys):
    assert main(["transcribe", "memory://audio"]) == 1
    assert "need a place for their outputs" in capsys.readouterr().err
    assert main(["transcribe", "memory://audio", "-o", "memory://out", "--channels", "separate"]) == 1
    assert "--channels, --salvage" in capsys.readouterr().err
    assert main(["transcribe", "memory://nowhere", "-o", "memory://out"]) == 1
    assert "memory://nowhere" in capsys.readouterr().err
    assert main(["transcribe", "nosuch://a/b.wav", "-o", "memory://out"]) == 1
    assert "nosuch" in capsys.readouterr().err


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write(str(path), b"one")
    assert read(str(path)) == b"one"
    write(f"file://{tmp_path}/other/b.txt", b"two")  # a store whose files appear while they are written
    assert [child.name for child in (tmp_path / "other").iterdir()] == ["b.txt"]
    with pytest.raises(AsrError, match="cannot write"):
        write(f"{path}/c.txt", b"three")


def test_the_callable_of_ray_and_spark(audio, model):
    pandas = pytest.importorskip("pandas")
    paths = sorted(map(str, audio.iterdir()))[:3]
    transcriber = Transcriber(str(model), device="cpu", engine="onnx")
    batch = transcriber({"audio": np.array([*paths, "none.wav"], object), "id": np.arange(4)})
    expected = [transcript.text for transcript in transcriber.recognizer.transcribe(paths)]
    assert list(batch["text"]) == [*expected, ""]
    assert batch["error"][3] == "there is no file none.wav"
    assert list(batch["id"]) == [0, 1, 2, 3]
    frames = [pandas.DataFrame({"audio": paths[:2]}), pandas.DataFrame({"audio": paths[2:]})]
    assert [text for frame in transcriber.in_pandas(frames) for text in frame["text"]] == expected


@pytest.fixture
def bucket(monkeypatch):
    """An S3 that is here."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="the extra remote is not installed")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    _, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fs, _ = filesystem("s3://speech")
    fs.mkdir("speech")
    yield fs
    running.stop()


@pytest.fixture
def two_nodes(bucket, monkeypatch):
    """A Ray cluster of two nodes of one worker each; its address. Its workers find the bucket."""
    pytest.importorskip("ray.data", reason="the extra ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    # A busy machine starts nodes slowly, and leaves processes of Ray's usual niceness hardly any time.
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def kill_a_worker(killed: list[int], ready: Callable[[], bool]) -> None:
    """Kill one of the processes that transcribe for Ray once it is the middle of the work; tell how many there were."""
    while not ready():
        time.sleep(0.5)
    workers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            workers += [int(path.parent.name)] * path.read_bytes().startswith(b"ray::MapWorker")
    os.kill(workers[0], signal.SIGKILL)
    killed.append(len(workers))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray, moto and botocore
def test_ray_on_s3_with_a_worker_killed(bucket, two_nodes, model, tmp_path, capsys):
    """2,000 files on two nodes, a worker killed in the middle: the outputs are those of a single run, none twice.

    Most of its time goes into the requests to the stand-in, so outputs are of one format, which tells texts, times and
    confidences, and the single run reads the files from the disk.
    """
    generator = np.random.default_rng(0)
    audio = tmp_path / "audio"
    audio.mkdir()
    for number in range(2000):
        samples = 0.1 * generator.standard_normal(RATE // 4)
        soundfile.write(audio / f"a{number:04}.wav", samples, RATE)
    (audio / "broken.wav").write_bytes(b"no audio")
    bucket.put(str(audio), "speech/audio", recursive=True)

    def half_done() -> bool:
        bucket.invalidate_cache()
        return len(bucket.find("speech/texts")) > 800

    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(killed, half_done), daemon=True)
    killer.start()
    line = "transcribe {source} --recursive --model {model} -o {out} -f ctm --engine onnx --threads 1"
    elsewhere = {"source": "s3://speech/audio/", "out": "s3://speech/texts/", "model": model}
    options = " --ray {address} --failures {failures}"
    assert run_asr(line + options, **elsewhere, address=two_nodes, failures=tmp_path / "failures") == 1
    killer.join(10)
    assert killed == [2]
    (failure,) = map(json.loads, (tmp_path / "failures").read_text().splitlines())
    assert failure["source"] == "s3://speech/audio/broken.wav"
    assert "2000 of 2001 are done" in capsys.readouterr().err
    assert run_asr(line, source=f"file://{audio}", model=model, out=tmp_path / "single") == 1
    single = contents(tmp_path / "single")
    assert len(single) == 2000
    bucket.invalidate_cache()
    found = {Path(name).name: text for name, text in bucket.cat(bucket.find("speech/texts")).items()}
    assert found == single
    assert run_asr(line, **elsewhere) == 1
    assert "2000 of 2001 have outputs already" in capsys.readouterr().err


def test_groups_give_the_same_bytes_wherever_they_are_done(audio, model, tmp_path):
    """What Ray's actors are given, as Ray Data gives it, against a run in this process."""
    options = {"model": str(model), "device": "cpu", "engine": "onnx", "threads": 1}
    (audio / "broken.wav").write_bytes(b"no audio")

    def tasks(folder):
        return [
            Task(str(path), str(tmp_path / folder / path.stem), path.stem, ("txt", "json"))
            for path in sorted(audio.iterdir())
        ]

    here = list(run_here(tasks("here"), **options))
    rows = [json.dumps([asdict(task) for task in group]) for group in groups_of(tasks("there"))]
    columns = Groups(**options)({"tasks": np.array(rows)})
    there = [Outcome(**json.loads(row)) for row in columns["outcome"]]
    assert there == here
    assert [outcome.kind for outcome in here].count("AudioError") == 1
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "here")) == 24
