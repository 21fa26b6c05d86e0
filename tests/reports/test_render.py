from asr.reports.render import address, render


def test_text_is_escaped():
    drawing = render("picture.svg", **PICTURE, words=[("<b>&", 0.0, 0.5)])
    assert "&lt;b&gt;&amp; 0.00 to 0.50 s" in drawing
    assert "<b>" not in drawing


def test_addresses_are_relative_to_the_page(tmp_path):
    assert address(tmp_path / "a b" / "ü.wav", tmp_path / "pages" / "r.html") == "../a%20b/%C3%BC.wav"


PICTURE = {
    "image": "data:,",
    "image_height": 1,
    "line": 1,
    "pixels": 10,
    "width": 10,
    "top": 0,
    "bottom": 1,
    "curves": [],
    "peaks": [],
    "seconds": 1.0,
}
