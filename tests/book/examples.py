"""Runs what the pages of docs/tutorial, docs/how_to and docs/explanation show, each page in a folder and a shell of its own.

    python3 tests/book/examples.py PROGRAM [--python PYTHON] [PART OF A PAGE'S PATH …]

| block | |
| --- | --- |
| `sh` | runs in the page's shell; each of its commands must succeed |
| `sh,fails` | runs apart, and must fail |
| `sh,server` | runs in the background to the end of the page; port 8080 is a free one, also in all blocks behind it |
| `python` | runs where `--python` names a Python with the packages of the page |
| `text` | the output of the block that ran before, or some of its lines, in their order. Numbers stand for any numbers, `…` for any text |
| with the word `ignore` | is not run, for the reason that `<!-- not run: REASON -->` on the line above it gives |

`<!-- check: WORDS => OTHER WORDS -->` above a block replaces words of it, so that it takes less time. Each page finds what the tutorial's demo left, small.
"""

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from markdown import DOCS, Block, blocks

TUTORIAL = DOCS / "tutorial" / "first_fusion.md"
FOLDERS = ("tutorial", "how_to", "explanation")
# Seconds until a page is ended.
LONGEST = 180
END_OF_BLOCK = b"\x1e"
NUMBER = re.compile(r"(?<!\w)[-+]?\d[\d,]*(?:\.\d+)?|\d+(?:\.\d+)?")
DATA = {"json", "toml", "nginx", "yaml"}


class Fault(Exception):
    """What a page shows is not what happens."""


class Shell:
    """One bash, which ends with the first command that fails, and all that it has started."""

    def __init__(self, folder: Path, scripts: Path, programs: Path, python: str | None):
        self.folder, self.scripts, self.count, self.port, self.python = folder, scripts, 0, None, python
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAFT_")}
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail"], cwd=folder, env=environment, start_new_session=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.last = time.monotonic() + LONGEST

    def script(self, text: str, ending: str) -> Path:
        self.count += 1
        path = self.scripts / f"block{self.count}.{ending}"
        path.write_text(text if self.port is None else text.replace("8080", str(self.port)))
        return path

    def send(self, line: str) -> str:
        """Runs a line and returns what it has printed; raises a Fault where it fails."""
        self.process.stdin.write(f"{line}\nprintf '{END_OF_BLOCK.decode()}'\n".encode())
        output = b""
        while not output.endswith(END_OF_BLOCK):
            ready, _, _ = select.select([self.process.stdout], [], [], max(self.last - time.monotonic(), 0))
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            output += piece
            if not piece:
                how = f"ends with {self.process.wait()}" if ready else f"does not end within {LONGEST} s"
                raise Fault(f"{how}:\n{output.decode(errors='replace')}")
        return output.removesuffix(END_OF_BLOCK).decode(errors="replace")

    def run(self, block: Block, text: str) -> str:
        if "server" in block.words:
            return self.serve(text)
        if block.words[0] == "python":
            return self.send(f"PYTHONPATH=. {self.python} -B -W ignore {self.script(text, 'py')} </dev/null")
        path = self.script(text, "sh")
        if "fails" in block.words:
            return self.send(f"if bash -euo pipefail {path} </dev/null; then echo 'this was to fail'; exit 1; fi")
        return self.send(f". {path} </dev/null")

    def serve(self, text: str) -> str:
        if "127.0.0.1:8080" not in text:
            raise Fault("a server is expected to listen on 127.0.0.1:8080")
        log = self.scripts / "server.log"
        path = self.script(text.replace("127.0.0.1:8080", "127.0.0.1:0"), "sh")
        self.send(f"bash -euo pipefail {path} </dev/null >{log} 2>&1 &")
        while not (found := re.search(r"listening on https?://127\.0\.0\.1:(\d+)", log.read_text() if log.exists() else "")):
            if time.monotonic() > self.last:
                raise Fault(f"the server does not begin:\n{log.read_text()}")
            time.sleep(0.05)
        self.port = int(found[1])
        self.send(f"export ENGRAFT_URL=http://127.0.0.1:{self.port}")
        return log.read_text().replace(str(self.port), "8080")

    def end(self):
        """Ends everything that was started, servers by the signal on which they drain."""
        self.process.stdin.close()
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            last = time.monotonic() + 10
            try:
                os.killpg(self.process.pid, wanted)
                while time.monotonic() < last:
                    self.process.poll()
                    os.killpg(self.process.pid, 0)
                    time.sleep(0.02)
            except ProcessLookupError:
                break
        self.process.stdout.close()


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    return " ".join(NUMBER.sub("#", re.sub(r"\x1b\[[0-9;]*m", "", line)).split())


def compare(expected: str, output: str):
    lines = iter(shape(line) for line in output.splitlines())
    for wanted in expected.splitlines():
        pattern = re.compile(".*".join(re.escape(part) for part in shape(wanted).split("…")))
        if not any(pattern.fullmatch(line) for line in lines):
            raise Fault(f"the output lacks the line\n    {wanted}\nor has it in another place:\n{output}")


def replaced(block: Block) -> str:
    """The block's text, with the words that its comment replaces."""
    if not block.comment.startswith("check: "):
        return block.text
    words, others = block.comment.removeprefix("check: ").split(" => ")
    if words not in block.text:
        raise Fault(f"no `{words}` is there to replace")
    return block.text.replace(words, others)


def reason(block: Block, python: str | None) -> str | None:
    """Why a block is not run."""
    if "ignore" in block.words:
        if not block.comment.startswith("not run: "):
            raise Fault("a block that is not run needs `<!-- not run: REASON -->` above it")
        return block.comment.removeprefix("not run: ")
    return "needs PyTorch, see .ci/long" if block.words[0] == "python" and python is None else None


def run_page(path: Path, folder: Path, scripts: Path, programs: Path, python: str | None) -> list[str]:
    """Runs a page and says which of its blocks it left out, or replaced, and why."""
    notes, output, shell = [], None, Shell(folder, scripts, programs, python)
    place = ""
    try:
        for block in blocks(path.read_text()):
            place = f"docs/{path.relative_to(DOCS)}:{block.line}"
            language = block.words[0]
            if language in DATA:
                continue
            if why := reason(block, python):
                notes.append(f"{place} is not run: {why}")
                output = None
            elif language == "text":
                if output is not None:
                    compare(block.text, output)
            elif language in ("sh", "python"):
                text = replaced(block)
                if text != block.text:
                    notes.append(f"{place} runs with other words: {block.comment.removeprefix('check: ')}")
                output = shell.run(block, text)
            else:
                raise Fault(f"a block of `{language}`: expected sh, python, text or one of {', '.join(sorted(DATA))}")
    except Fault as fault:
        raise Fault(f"{place}: {fault}") from None
    finally:
        shell.end()
    return notes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--python")
    parser.add_argument("pages", nargs="*")
    options = parser.parse_intermixed_args()
    begun = time.monotonic()
    pages = [path for folder in FOLDERS for path in sorted((DOCS / folder).glob("*.md"))]
    pages = [path for path in pages if path != TUTORIAL and (not options.pages or any(part in str(path) for part in options.pages))]
    with tempfile.TemporaryDirectory() as all_folders:
        root = Path(all_folders)
        programs = root / "bin"
        programs.mkdir()
        (programs / "engraft").symlink_to(options.program.resolve())
        demo = root / TUTORIAL.stem / "my-first-fusion" / "engraft-demo"

        def run(path: Path) -> tuple[str, bool]:
            folder, scripts = root / path.stem, root / f"{path.stem}.scripts"
            folder.mkdir()
            scripts.mkdir()
            if path != TUTORIAL:
                for name in ("m0.safetensors", "m1.safetensors", "m2.safetensors", "glyphs.npz", "validation.npz", "job.json"):
                    shutil.copy(demo / name, folder)
            since = time.monotonic()
            try:
                notes = run_page(path, folder, scripts, programs, options.python)
            except Fault as fault:
                return str(fault), False
            return "\n".join([f"{path.relative_to(DOCS)} ran in {time.monotonic() - since:.1f} s", *(f"    {note}" for note in notes)]), True

        results = [run(TUTORIAL)]
        print(results[0][0], flush=True)
        if results[0][1]:
            with ThreadPoolExecutor(2) as pool:
                for result in pool.map(run, pages):
                    results.append(result)
                    print(result[0], flush=True)
    if not all(well for _, well in results):
        sys.exit("what the book shows is not what happens")
    print(f"{len(results)} pages ran in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
