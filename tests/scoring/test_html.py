import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from asr.scoring import score
from asr.scoring.breakdown import word_confusions
from asr.scoring.calibration import expected_calibration_error
from asr.scoring.html import merge, render

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "input", "path", "rect", "br"}


class Balanced(HTMLParser):
    """Check that every element is closed, and collect addresses the page refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(sentences):
    references, hypotheses = sentences
    fields = {
        "gender": ["f" if i % 3 else "m" for i in range(len(references))],
        "duration": [1.5] * len(references),
    }
    speakers = [f"s{i % 12}" for i in range(len(references))]
    return score(references, hypotheses, speakers=speakers, fields=fields)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_page_is_well_formed_and_needs_nothing_else(report):
    page = render(report, "an4 dev")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.addresses == ["#list"]
    assert not re.search(r"https?://|url\(|@import", page)
    assert f"{100 * report.wer:.2f} %" in page
    assert "12 speakers" in page


def test_page_holds_every_utterance(report):
    data = data_of(render(report))
    assert tuple(data["references"]) == report.references
    assert [kinds.count("S") for kinds in data["kinds"]] == report.utterance_errors[:, 0].tolist()
    assert [field["name"] for field in data["fields"]] == ["speaker", "gender"]


def test_transcripts_cannot_break_out_of_the_page():
    evil = "</script><script>alert(1)</script> {{title}} <!--"
    page = render(score([evil], ["x"], ids=["<b>"]), title="<i>&")
    assert data_of(page)["references"] == [evil]
    assert "<script>alert" not in page
    assert "<title>&lt;i&gt;&amp;</title>" in page


def test_several_systems_and_calibration(report, sentences):
    other = score(sentences[0], sentences[0])
    page = render(
        {"poor": report, "perfect": other}, part="system", calibration=expected_calibration_error([0.5], [1])
    )
    assert "expected calibration error 50.00 %" in page
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    cells = re.findall(r"<td>(.*?)</td>", page[page.index('<th scope="row">poor</th>') :])
    row = dict(zip(heads[1:9], cells, strict=False))
    assert row["WER %"] == f"{100 * report.wer:.2f}"
    assert [row[name] for name in ("sub", "del", "ins", "words", "utterances")] == [
        str(getattr(report, name))
        for name in ("substitutions", "deletions", "insertions", "words", "utterances")
    ]
    data = data_of(page)
    assert data["fields"][0] == {
        "name": "system",
        "values": ["poor"] * report.utterances + ["perfect"] * report.utterances,
    }
    whole = merge({"poor": report, "perfect": other})
    assert whole.word_errors.errors == report.word_errors.errors


def test_sounds_and_pictures_are_handed_on(report):
    name = report.ids[0]
    data = data_of(render(report, audio={name: "wav/a.wav"}, pictures={name: "data:image/png;base64,AA"}))
    assert data["audio"] == {name: "wav/a.wav"}
    assert data["pictures"] == {name: "data:image/png;base64,AA"}


def test_what_strikes_is_said_in_words():
    references = ["go there now then"] * 30 + ["p"] * 10
    hypotheses = ["go there now then"] * 30 + ["d"] * 10
    page = render(score(references, hypotheses, fields={"room": ["hall"] * 30 + ["<attic>"] * 10}))
    assert "Most frequent substitutions: “d” for “p” (10 times)." in page
    assert "Room <b>&lt;attic&gt;</b>: 100% of the errors in 8% of the words." in page
    assert "Length of the word <b>1 letter</b>: 100% of the errors" in page


def test_nothing_to_show():
    assert "0 substituted" in render(score([], []))


def browse(page, tmp_path, script=""):
    """Draw a page in Chromium, let a script act on it, and give what the page is then."""
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=9000", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@browser
def test_a_browser_draws_the_worst_utterances_first(report, tmp_path):
    drawn = browse(render(report), tmp_path)
    wrong = report.sentence_errors
    assert f">1–50 of {wrong}<" in drawn
    table = drawn[drawn.index('<table id="utterances"') :]
    errors = list(map(int, re.findall(r'<td data-name="errors">(\d+)</td>', table)))
    assert len(errors) == 50
    assert errors[0] == report.utterance_errors[:, :3].sum(axis=1).max()
    assert errors == sorted(errors, reverse=True)
    assert '<ins title="inserted"' in table
    assert 'aria-sort="descending"' in table


@browser
def test_a_browser_finds_filters_turns_pages_and_opens_pictures(report, tmp_path):
    worst = report.ids[int(report.utterance_errors[:, :3].sum(axis=1).argmax())]
    media = {
        "audio": {worst: "gone.ogg"},
        "pictures": {worst: '<svg class="picture" data-rate="9"><line class="cursor"/></svg>'},
    }
    steps = """
        const told = {};
        const named = (text) => [...document.querySelectorAll("button")].find((button) => button.textContent === text);
        document.querySelector("#utterances details").open = true;
        named("Next").click(); told.next = $("where").textContent;
        document.querySelector("[data-pattern]").click();
        told.pattern = $("where").textContent; told.pressed = document.querySelectorAll("[aria-pressed=true]").length;
        $("clear").click();
        named("utterance").click();
        told.sorted = [...document.querySelectorAll("#utterances tbody th")].map((cell) => cell.textContent);
        $("kind").value = ""; $("find").value = "RUBOUT"; update(); told.found = $("where").textContent;
        $("find").value = "no such thing"; update(); told.none = $("where").textContent;
        named("Dark").click(); told.theme = document.documentElement.dataset.theme;
        $("find").value = ""; state.sort = "errors"; state.down = true; update();
        document.querySelector("#utterances details").open = true;
        setTimeout(() => {
            told.picture = document.querySelectorAll("#utterances svg.picture").length;
            told.audio = document.querySelector("#utterances .quiet").textContent;
            document.title = JSON.stringify(told);
        }, 2500);
        document.querySelector("#utterances audio").load();
    """
    told = json.loads(re.search("<title>(.*?)</title>", browse(render(report, **media), tmp_path, steps))[1])
    assert told["next"].startswith("51–")
    substitutions = word_confusions(report).substitutions
    said, heard = min(substitutions, key=lambda pair: (-substitutions[pair], " → ".join(pair)))
    with_it = {index for index, kind, *words in report.edits() if kind == "S" and words == [said, heard]}
    assert told["pattern"].endswith(f"of {len(with_it)}")
    assert told["pressed"] == 1
    assert told["sorted"] == sorted(told["sorted"])
    found = sum("rubout" in f"{a} {b}" for a, b in zip(report.references, report.hypotheses, strict=True))
    assert told["found"].endswith(f"of {found}")
    assert told["none"] == "none"
    assert told["theme"] == "dark"
    assert told["picture"] == 1
    assert told["audio"] == "The audio file is missing or cannot be played."
