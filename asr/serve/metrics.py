"""What the service counts, as Prometheus reads it."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from threading import Lock

QUANTILES = (0.5, 0.9, 0.95, 0.99)
# Of the latest requests or words, which the quantiles are of.
REMEMBERED = 2000


class Summary:
    """Quantiles of the latest values, and the sum and number of all.

    >>> summary = Summary()
    >>> for value in range(101):
    ...     summary.add(value)
    >>> summary.quantile(0.5), summary.count
    (50, 101)
    """

    def __init__(self):
        self.latest: deque[float] = deque(maxlen=REMEMBERED)
        self.count, self.total = 0, 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.latest.append(value)
        self.count, self.total = self.count + 1, self.total + value

    def quantile(self, share: float) -> float:
        """Return the value that this share of the latest ones does not exceed; 0 where there is none."""
        ordered = sorted(self.latest)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Metrics:
    """Counts requests, audio, latencies and batches; safe to use from several threads."""

    def __init__(self):
        self._lock = Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._audio: Counter[str] = Counter()
        self._latency = {"request": Summary(), "word": Summary()}
        self._batches = self._batched = 0
        self._busy = 0.0
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def request(self, endpoint: str, status: int) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._requests[endpoint, status] += 1

    def audio(self, model: str, seconds: float) -> None:
        """Count audio that was recognized."""
        with self._lock:
            self._audio[model] += seconds  # type: ignore[assignment]

    def latency(self, of: str, seconds: float) -> None:
        """Count how long a request took, or how long after its sound a word of a stream was sent."""
        with self._lock:
            self._latency[of].add(seconds)

    def batch(self, requests: int, seconds: float, took: float) -> None:
        """Count a batch: its requests, seconds of audio, and seconds that it took to compute."""
        with self._lock:
            self._batches += 1
            self._batched += requests
            self._busy += took

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add what is looked at when it is asked for."""
        self._gauges[name] = (text, value)

    def render(self) -> str:
        """Return all of it in Prometheus's text format."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _head("asr_requests_total", "counter", "requests answered")
        for (endpoint, status), count in sorted(self._requests.items()):
            yield f'asr_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        yield from _head("asr_audio_seconds_total", "counter", "seconds of audio recognized")
        for model, seconds in sorted(self._audio.items()):
            yield f'asr_audio_seconds_total{{model="{_escaped(model)}"}} {seconds:.3f}'
        for of, summary in self._latency.items():
            name = f"asr_{of}_latency_seconds"
            yield from _head(name, "summary", f"seconds until a {of} was answered or sent")
            for share in QUANTILES:
                yield f'{name}{{quantile="{share}"}} {summary.quantile(share):.4f}'
            yield f"{name}_sum {summary.total:.4f}"
            yield f"{name}_count {summary.count}"
        counters = (
            ("asr_batches_total", "batches computed", self._batches),
            ("asr_batched_windows_total", "windows of requests computed in batches", self._batched),
            ("asr_computing_seconds_total", "seconds spent on batches", round(self._busy, 3)),
        )
        for name, text, value in counters:
            yield from _head(name, "counter", text)
            yield f"{name} {value}"
        for name, (text, look) in self._gauges.items():
            yield from _head(name, "gauge", text)
            yield f"{name} {look():g}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
