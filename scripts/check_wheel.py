"""Check an installed wheel: its kernels load without a compiler, and compute what the plain reference does."""

import os
import shutil
import sys
import tempfile

import torch

from asr.recurrent import RecurrentLayer
from asr.recurrent.cpu import build, library


def main() -> None:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # kernels that were compiled before do not count
    if any(map(shutil.which, ("c++", "g++", "clang++", "cc"))):
        sys.exit(
            "there is a compiler on the PATH; run this as: env PATH=/nonexistent python scripts/check_wheel.py"
        )
    if not build.prebuilt().is_file():
        sys.exit(f"the wheel has no kernels: there is no {build.prebuilt()}")
    names = [name for name in build.INSTRUCTION_SETS if library.load().recurrent_supports(name.encode())]
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 20, 8), torch.tensor([20, 13, 1])
    for name in names:
        os.environ["ASR_RECURRENT_ISA"] = name
        library.instruction_set.cache_clear()
        for cell in ("lstm", "peephole", "cifg", "gru"):
            layer = RecurrentLayer(cell, 8, 16, bidirectional=True, backend="fused")
            found = layer(x, lengths)[0]
            layer.backend = "reference"
            torch.testing.assert_close(found, layer(x, lengths)[0], rtol=1e-4, atol=1e-5)
        print(f"{name}: fused layers equal the reference")


if __name__ == "__main__":
    main()
