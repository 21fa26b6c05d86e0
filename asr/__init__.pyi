from asr.api import train as train
from asr.api import transcribe as transcribe
from asr.audio import load_audio as load_audio
from asr.bundle import Bundle as Bundle
from asr.bundle import available_models as available_models
from asr.errors import AsrError as AsrError
from asr.evaluation import evaluate as evaluate
from asr.language_model import load_lm as load_lm
from asr.recognizer import Recognizer as Recognizer
from asr.recognizer import load as load
from asr.scoring import ErrorReport as ErrorReport
from asr.scoring import score as score
from asr.scoring.formats import read_transcripts as read_transcripts
from asr.scoring.significance import compare as compare
from asr.streaming import Stream as Stream
from asr.transcript import Segment as Segment
from asr.transcript import Transcript as Transcript
from asr.transcript import Word as Word
from asr.version import __version__ as __version__

__all__ = [
    "AsrError",
    "Bundle",
    "ErrorReport",
    "Recognizer",
    "Segment",
    "Stream",
    "Transcript",
    "Word",
    "__version__",
    "available_models",
    "compare",
    "evaluate",
    "load",
    "load_audio",
    "load_lm",
    "read_transcripts",
    "score",
    "train",
    "transcribe",
]
