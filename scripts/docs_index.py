"""mkdocs hook: the site's first page is README.md, its links turned to the site's pages."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, page, **_) -> str:
    """Return README.md for index.md: links into docs/ lose the folder, those to other files their address."""
    if page.file.src_uri != "index.md":
        return markdown
    readme = (ROOT / "README.md").read_text("utf-8")
    readme = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", readme)
    return re.sub(
        r"\[([^]]+)\]\((?!https?:|#)([^)]+/[^)]+|[A-Z]+\.md)\)(?<!\.html\))", _without_address, readme
    )


def _without_address(match: re.Match) -> str:
    inside = (ROOT / "docs" / match[2]).exists()
    return match[0] if inside else f"{match[1]}: `{match[2]}`"
