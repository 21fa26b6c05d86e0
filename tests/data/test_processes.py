"""Two real processes with two workers each: together they see every utterance once."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter

from asr.data.corpora.utterances import Utterance, build_cuts
from asr.data.cuts import write_cuts
from asr.data.shards import write_shards

PROGRAM = """
import json, sys
import torch.distributed
from asr.data import BatchLimits, BatchOrder, Encoding, load_cuts, make_loader
from asr.data.shards import Shards
from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.text import CharacterTokenizer

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    epochs = []
    for cuts in (load_cuts(sys.argv[1]), Shards(sys.argv[2])):
        loader = make_loader(
            cuts, Encoding(LogMel(FeatureConfig(n_mels=8)), CharacterTokenizer(["a"]), "none"),
            limits=BatchLimits(batch_seconds=4.0), order=BatchOrder(shuffle=True, speeds=(0.9, 1.1)), workers=2,
        )
        for number in range(2):
            loader.set_epoch(number)
            epochs.append([batch.ids for batch in loader])
    print(json.dumps(epochs))
    torch.distributed.destroy_process_group()
"""


def test_two_processes_with_two_workers_each(tmp_path, write_audio):
    utterances = [
        Utterance(f"u{i:02d}", write_audio(tmp_path / f"{i}.wav", 0.3 + i / 50), "a") for i in range(50)
    ]
    cuts = build_cuts(utterances)[0]
    sources = [str(write_cuts(cuts, tmp_path, "train")), str(tmp_path / "shards")]
    write_shards(cuts, tmp_path / "shards", shard_size=5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sources],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in running)
    assert [process.returncode for process in running] == [0, 0]
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other)
        seen = Counter(name for batches in (one, other) for ids in batches for name in ids)
        assert seen == Counter(cut.id for cut in cuts)
    assert len(first) == 4  # two epochs of files, two of shards
    assert first[0] != first[1]
