"""Every link leads somewhere: those of the rendered book, those of the pages in Markdown, and what other files say of `docs/`.

    python3 tests/book/links.py target/book
"""

import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown import DOCS, ROOT, anchors, prose


class Page(HTMLParser):
    """Ids and links of a rendered page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


page = cache(Page)


def local(link: str) -> tuple[str, str] | None:
    """Path and anchor of a link within the project."""
    parts = urlsplit(link)
    return None if parts.scheme or parts.netloc else (unquote(parts.path), unquote(parts.fragment))


def broken_in_book(book: Path):
    """A folder counts as its index."""
    for path in sorted(book.rglob("*.html")):
        if path.name == "404.html":  # its links begin at the root of a site
            continue
        for link in page(path).links:
            if (parts := local(link)) is None:
                continue
            target = (path.parent / parts[0]).resolve() if parts[0] else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(book) or not target.is_file():
                yield f"{path.relative_to(book)}: {link} is not in the book"
            elif parts[1] and target.suffix == ".html" and parts[1] not in page(target).ids:
                yield f"{path.relative_to(book)}: {link} has no such anchor"


def not_in_book(book: Path):
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).with_suffix(".html")
        name = name.with_name("index.html") if name.name == "README.html" else name
        if path.name != "SUMMARY.md" and not (book / name).is_file():
            yield f"docs/{path.relative_to(DOCS)}: not in SUMMARY.md"


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    return [path for name in names.decode().split("\0") if name and (path := ROOT / name).is_file()]


def broken_in_markdown(files: list[Path]):
    for path in files:
        if path.suffix != ".md" or "fixtures" in path.parts:
            continue
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
            if (parts := local(link)) is None:
                continue
            target = (path.parent / parts[0]).resolve() if parts[0] else path
            where = path.relative_to(ROOT)
            if not target.exists():
                yield f"{where}: {link} is not there"
            elif path.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
                yield f"{where}: {link} leaves docs/, so it is broken in the book; name the file without a link"
            elif parts[1] and target.suffix == ".md" and parts[1] not in anchors(target.read_text()):
                yield f"{where}: {link} has no such heading"


def broken_mentions(files: list[Path]):
    """Messages, alerts and comments that send readers to a page."""
    for path in files:
        if path.suffix not in {".rs", ".toml", ".yaml", ".yml", ".json", ".md", ".py", ".sh", ".js", ""}:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for name, anchor in re.findall(r"(?<![\w/.-])docs/([\w/.-]+\.(?:md|json))(?:#([\w-]+))?", text):
            target = DOCS / name
            if not target.is_file():
                yield f"{path.relative_to(ROOT)}: docs/{name} is not there"
            elif anchor and anchor not in anchors(target.read_text()):
                yield f"{path.relative_to(ROOT)}: docs/{name}#{anchor} has no such heading"


def main():
    book = Path(sys.argv[1]).resolve()
    files = tracked()
    faults = [*broken_in_book(book), *not_in_book(book), *broken_in_markdown(files), *broken_mentions(files)]
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(f"{len(faults)} broken links")
    pages = sorted(book.rglob("*.html"))
    print(f"the links of {len(pages)} pages lead somewhere")


if __name__ == "__main__":
    main()
