"""The report of a run: complete, self-contained, and drawn however the run ends."""

import math
import re
from html.parser import HTMLParser

from helpers import train_arguments

from asr.cli import main
from asr.reports.chart import chart
from asr.training.environment import git_revision


class Addresses(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]


def test_it_shows_everything_and_asks_for_nothing(run_folder):
    page = (run_folder / "report.html").read_text("utf-8")
    for title in ("Loss", "Errors on dev", "Learning rate", "Gradient norm of each layer", "Throughput"):
        assert f"<figcaption>{title} " in page
    assert "recurrent.0" in page
    assert page.count("<td>epoch 60</td>") == page.count('class="picture"') == 4
    assert page.count("<td>epoch 1</td>") == 4
    for text in ("git revision", "learning_rate: 0.02", "finished", "best dev WER"):
        assert text in page
    addresses = Addresses()
    addresses.feed(page)
    assert addresses.found
    assert all(address.startswith("data:") for address in addresses.found)
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org", "", page)


def test_it_can_be_drawn_again(run_folder, tmp_path, capsys):
    before = (run_folder / "report.html").read_text("utf-8")
    (run_folder / "report.html").unlink()
    assert main(["report", str(run_folder)]) == 0
    assert (run_folder / "report.html").read_text("utf-8") == before
    assert main(["report", str(tmp_path)]) == 1
    assert "is not the folder of a run" in capsys.readouterr().err


def test_a_run_that_diverges_leaves_it_too(corpus, tmp_path):
    settings = ("--run.epochs=30", "--optimizer.learning_rate=1e30", "--optimizer.warmup_epochs=0")
    assert main(train_arguments(corpus, tmp_path / "run", *settings, "--optimizer.gradient_clip=0")) == 1
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "ended: the loss or its gradient was not finite in 10 steps in a row" in page
    assert "skipped: " in page


def test_curves_leave_gaps_where_values_are_not_finite():
    drawn = chart("Loss", {"training": [(1, 2.0), (2, math.nan), (3, 1.0), (4, 0.5)]}, "nat")
    assert "1 of 4 values are not finite" in drawn
    assert drawn.count("M46.0") == 1  # the first point; the curve begins anew after the gap
    assert re.search(r'class="curve"[^>]* d="M[\d. ]+M[\d. ]+L[\d. ]+"', drawn)
    assert "nothing was logged" in chart("Loss", {"training": []}, "")


def test_norms_are_drawn_over_powers_of_ten():
    drawn = chart("Norm", {"a": [(1, 3e-7), (9, 2.0)]}, "", log=True)
    assert ">1e-07<" in drawn
    assert ">10<" in drawn


def test_the_revision_is_a_commit():
    assert re.match(r"[0-9a-f]{40}|none", git_revision())
