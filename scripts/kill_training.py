"""Kill a training run again and again, and see that it ends in the same weights as one left alone.

  python scripts/kill_training.py --kills 20 -- --config recipes/an4/config.yaml --run.epochs 3

What follows `--` is given to `asr train`. The kills (SIGKILL) come at random moments, so that each takes about an
equal share of the run. Prints both checksums; exit status 1 where they differ.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def start(folder: Path, arguments: list[str], *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "asr", "train", *arguments, f"--run.folder={folder}", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def checksum(folder: Path) -> str:
    return json.loads((folder / "bundle" / "config.json").read_text())["weights_sha256"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    arguments = [*options.arguments, "--run.deterministic=true", "--run.checkpoint_minutes=0.01"]
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        began = time.monotonic()
        start(whole, arguments).wait()
        print(f"alone: {time.monotonic() - began:.0f} s, {checksum(whole)}", flush=True)
        share, kills = (time.monotonic() - began) / options.kills, 0
        while kills < options.kills:
            begun = (killed / "checkpoints" / "last.ckpt").exists()
            process = start(killed, arguments, *(["--resume"] if begun else []))
            while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
                time.sleep(0.1)
            try:
                process.wait(chance.uniform(0, 2 * share) + 5)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        start(killed, arguments, "--resume").wait()
        print(f"killed {kills} times: {checksum(killed)}")
        return int(checksum(whole) != checksum(killed))


if __name__ == "__main__":
    sys.exit(main())
