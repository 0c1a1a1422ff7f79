"""Talks to a program that answers questions, a line of JSON each: engraft's half of the checks and PyTorch's (pytorch.py).

No question waits for ever: one that is not answered in time ends the program, and the next question starts it anew. A program
that ends by itself is started anew, too. Children have process groups of their own, so that what they start ends with them.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
from typing import ClassVar


class Problem(Exception):
    """No answer; the text says why."""


class Refused(Problem):
    """The program answered with an error."""


class Budget:
    """The time that is left of a number of seconds."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()

    def limit(self, seconds, least=2.0):
        """At most `seconds`, and no more than is left."""
        if self.left() < least:
            raise Problem("no time was left")
        return min(seconds, self.left())


class Child:
    """A program, started at the first question. What it writes besides its answers goes to the log."""

    every: ClassVar = []

    def __init__(self, name, command, log, **environment):
        self.name, self.command, self.log, self.environment = name, command, pathlib.Path(log), environment
        self.process, self.lines, self.log_start, self.is_over = None, None, 0, False
        Child.every.append(self)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        with self.log.open("ab") as log:
            log.write(f"-- {self.name}: {' '.join(map(str, self.command))}\n".encode())
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, process_group=0,
                env=os.environ | {"RUST_BACKTRACE": "1"} | self.environment,
            )
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self.read, args=(self.process.stdout, self.lines), daemon=True).start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            if line.startswith("{"):
                lines.put(line)
        lines.put(None)

    def ask(self, question, limit, is_again=False):
        """The answer, if it comes within `limit` seconds."""
        if self.is_over:
            raise Problem(f"{self.name} is not needed any more")
        if not self.is_running():
            self.close()
            self.start()
        process = self.process
        with contextlib.suppress(OSError, ValueError):
            print(json.dumps(question), file=process.stdin, flush=True)
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise Problem(f"{self.name} did not answer within {limit:.0f} s") from None
        if line is None:
            problem = self.ended(process)
            if process.returncode == 0 and not is_again:
                # It had ended after its last answer.
                return self.ask(question, limit, is_again=True)
            raise Problem(problem)
        try:
            answer = json.loads(line)
        except ValueError:
            self.close()
            raise Problem(f"{self.name} answered `{line.strip()[:200]}`") from None
        if "error" in answer:
            raise Refused(f"{self.name}: {answer['error']}")
        return answer

    def ended(self, process):
        """That the program has ended, with the last that it wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        code = process.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"code {code}"
        self.close()
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            last = log.read().decode(errors="replace").strip().splitlines()[-3:]
        return f"{self.name} ended with {how}: {' | '.join(last)[-400:] or 'it wrote nothing'}"

    def finish(self, limit):
        """The exit code, after the last question."""
        process = self.process
        if process is None:
            raise Problem(f"{self.name} has ended already")
        process.stdin.close()
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Problem(f"{self.name} did not end within {limit:.0f} s") from None
        finally:
            self.close()

    def close(self):
        """Ends the program and all that it started."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(OSError):
            process.stdin.close()

    @classmethod
    def close_all(cls):
        for child in cls.every:
            child.is_over = True
            child.close()


def stop_when_asked():
    """Makes SIGTERM an exit like any other, so that children end, too."""
    def stop(*_):
        raise SystemExit("stopped: out of time")

    signal.signal(signal.SIGTERM, stop)


def write_json(path, value):
    """Writes all at once: what is there is whole at any time."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    new.replace(path)


def print_table(heads, rows, left=2):
    """Columns under their heads, the first ones to the left."""
    rows = [heads, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) if at < left else cell.rjust(width)
                 for at, (cell, width) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip(), flush=True)
