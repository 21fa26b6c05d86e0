"""What a run runs on: versions, machine, and the revision of the code."""

import platform
import subprocess
import sys
from pathlib import Path

import torch

from asr.version import __version__


def environment() -> dict[str, str]:
    """Return what this process runs on, in words."""
    found = {
        "command": " ".join(["asr", *sys.argv[1:]]),
        "asr": __version__,
        "git revision": git_revision(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
    if torch.cuda.is_available():
        found["GPU"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return found


def git_revision() -> str:
    """Return the commit of the code that runs, and whether files differ from it; what is installed has none."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "HEAD") if git("ls-files", Path(__file__).name) else ""
    if not revision:
        return "none: asr is not run from a checkout"
    changed = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    return revision + (f", {changed} files changed since" if changed else "")
