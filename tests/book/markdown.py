"""Pages in Markdown, as far as the checks of the book need to understand them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

FENCE = re.compile(r"^(`{3,})(.*)$")
COMMENT = re.compile(r"^<!-- (.*) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words behind its fence, its text, its line, and the comment on the line above it."""

    words: tuple[str, ...]
    text: str
    line: int
    comment: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found, opened, lines = [], None, text.split("\n")
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            comment = COMMENT.match(lines[number - 2]) if number > 1 else None
            opened = (fence[1], fence[2], number, comment[1] if comment else "")
        elif opened and line == opened[0]:
            _, words, start, comment = opened
            content = "".join(f"{inner}\n" for inner in lines[start : number - 1])
            found.append(Block(tuple(re.split(r"[, ]+", words.strip())), content, start, comment))
            opened = None
    assert opened is None, f"the block of line {opened[2]} has no end"
    return found


def prose(text: str) -> str:
    """The page without its fenced blocks and without code within lines."""
    kept, inside = [], False
    for line in text.split("\n"):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", "\n".join(kept))


def anchors(text: str) -> set[str]:
    """What a link to the page may name behind `#`: its headings as GitHub and mdBook spell them, and ids that it sets itself."""
    found, inside = set(re.findall(r'<a id="([^"]+)">', text)), False
    for line in text.split("\n"):
        if FENCE.match(line):
            inside = not inside
        elif not inside and (heading := re.match(r"^#{1,6} +(.*)$", line)):
            found.add(re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-"))
    return found
