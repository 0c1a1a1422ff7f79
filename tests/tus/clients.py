"""A server and two clients of tus that did not write each other."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import numpy
from tusclient.client import TusClient

sys.path.append("tests/common")
from serving import serving  # noqa: E402

PART = 512 * 1024


def get(url: str) -> dict:
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())


def arrived(server: str, name: str, sha256: str, client: str) -> None:
    shown = get(f"{server}/v1/datasets/{name}")
    assert shown["sha256"] == sha256, shown
    assert shown["labels"] == {"client": client}, shown
    assert get(f"{server}/v1/uploads")["data"] == []


def offset(url: str) -> int:
    request = urllib.request.Request(url, method="HEAD", headers={"Tus-Resumable": "1.0.0"})
    with urllib.request.urlopen(request) as answer:
        return int(answer.headers["Upload-Offset"])


def javascript(server: str, file: pathlib.Path, sha256: str) -> None:
    def run(*words: str, **more: str) -> str:
        module = str(pathlib.Path("target/tus/node_modules/tus-js-client").resolve())
        environment = os.environ | {"TUS_JS_CLIENT": module} | more
        command = ["node", "tests/tus/upload.cjs", server, str(file), "js.npz", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    url = run(str(2 * PART))
    there = offset(url)
    assert 2 * PART <= there < file.stat().st_size, there
    print(f"tus-js-client: cut after {there} bytes", end="")
    assert run(RESUME=url) == url
    arrived(server, "js.npz", sha256, "tus-js-client")
    print(", went on, arrived")


def python(server: str, file: pathlib.Path, sha256: str) -> None:
    client = TusClient(f"{server}/v1/uploads")
    said = {"kind": "dataset", "filename": "py.npz", "label.client": "tuspy"}
    first = client.uploader(str(file), chunk_size=PART, metadata=said, upload_checksum=True)
    first.upload(stop_at=2 * PART)
    there = offset(first.url)
    assert there == 2 * PART, there
    print(f"tuspy: with checksums, cut after {there} bytes", end="")
    client.uploader(str(file), chunk_size=PART, url=first.url, upload_checksum=True).upload()
    arrived(server, "py.npz", sha256, "tuspy")
    print(", went on, arrived")


def main() -> None:
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "data.npz")
        random = numpy.random.default_rng(0)
        numpy.savez(file, x=random.integers(0, 256, (1500, 3, 32, 32), dtype=numpy.uint8), y=random.integers(0, 10, 1500))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        with serving(binary, folder) as address:
            javascript(address, file, sha256)
            python(address, file, sha256)
    print("tus: passed")


main()
