"""From any corpus to batches. lhotse's cuts are the manifest, and lhotse is at home in this package only."""

from asr.data.loading import Batch, Loader, make_loader
from asr.data.manifests import load_cuts

__all__ = ["Batch", "Loader", "load_cuts", "make_loader"]
