"""The whole command beside a plain copy: `python3 benches/end_to_end.py ENGRAFT [--widths 1024,4096] [--members 2,4] [--runs 7]`.

Members are MLPs of 3072 inputs, two hidden layers and ten classes with drawn weights. `engraft fuse` reads them, makes one of them with every
default that needs no data, verifies and writes it. The copy reads the same files, writes and syncs one file of a member's size, and hashes it.
Both run in turn, as processes; ratios are of neighbours. Memory is what a process has allocated at most, without mapped files.
Needs numpy and safetensors. OUT of noise: nothing else may run.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from safetensors.numpy import save_file

COPY = """
import hashlib, os, sys
*members, out = sys.argv[1:]
block = bytearray(1 << 22)
for place, member in enumerate(members):
    with open(member, 'rb', buffering=0) as source, open(out if place == 0 else os.devnull, 'wb', buffering=0) as sink:
        while count := source.readinto(block):
            if place == 0:
                sink.write(memoryview(block)[:count])
        if place == 0:
            os.fsync(sink.fileno())
with open(out, 'rb') as file:
    hashlib.file_digest(file, 'sha256')
"""


def make(folder: pathlib.Path, width: int, members: int) -> list[pathlib.Path]:
    paths = []
    for seed in range(members):
        random = numpy.random.default_rng(seed)

        def layer(rows: int, columns: int) -> numpy.ndarray:
            return random.standard_normal((rows, columns), dtype=numpy.float32) / numpy.float32(columns**0.5)

        sizes = [(width, 3072), (width, width), (10, width)]
        tensors = {f"fc{index}.weight": layer(*size) for index, size in enumerate(sizes, 1)}
        tensors |= {f"fc{index}.bias": numpy.zeros(rows, numpy.float32) for index, (rows, _) in enumerate(sizes, 1)}
        path = folder / f"w{width}-m{seed}.safetensors"
        if not path.exists():
            save_file(tensors, path)
        paths.append(path)
    return paths


def run(command: list[str]) -> tuple[float, float, int]:
    """Seconds by the clock, of the processor, and bytes that were allocated at most."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    status, peak = pathlib.Path(f"/proc/{process.pid}/status"), 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        lines = status.read_text().splitlines()
        anonymous = next((line for line in lines if line.startswith("RssAnon")), "RssAnon: 0 kB")
        peak = max(peak, 1024 * int(anonymous.split()[1]))
        time.sleep(0.001)
    seconds = time.perf_counter() - began
    message = process.stderr.read().decode()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{message}")
    return seconds, usage.ru_utime + usage.ru_stime, peak


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engraft")
    parser.add_argument("--widths", type=numbers, default=[1024, 4096])
    parser.add_argument("--members", type=numbers, default=[2, 4])
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    print("width  n   engraft     copy   ratio (of neighbours)   processor   memory / member")
    with tempfile.TemporaryDirectory(dir=".") as folder_name:
        folder = pathlib.Path(folder_name)
        for width in arguments.widths:
            for count in arguments.members:
                paths = make(folder, width, count)
                size, out = paths[0].stat().st_size, folder / "out.safetensors"
                members = [word for path in paths for word in ("--member", str(path))]
                fuse = [arguments.engraft, "fuse", *members, "--job", str(folder / "job.json"), "--out", str(out), "--force"]
                (folder / "job.json").write_text('{"architecture": {"family": "mlp", "activation": "relu"}}')
                copy = [sys.executable, "-c", COPY, *map(str, paths), str(out)]
                rows = []
                for _ in range(arguments.runs + 1):
                    out.unlink(missing_ok=True)
                    own = run(fuse)
                    out.unlink(missing_ok=True)
                    rows.append((own, run(copy)))
                rows = rows[1:]
                of = lambda pick: statistics.median(map(pick, rows))  # noqa: E731
                ratios = sorted(own[0] / plain[0] for own, plain in rows)
                print(
                    f"{width:5}  {count}  {of(lambda row: row[0][0]):6.2f} s  {of(lambda row: row[1][0]):6.2f} s"
                    f"   {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})   {of(lambda row: row[0][1]):8.2f} s"
                    f"   {of(lambda row: row[0][2]) / size:8.2f}"
                )
            for path in folder.glob("w*.safetensors"):
                path.unlink()


main()
