"""Runs the code of docs/pytorch.md, block by block, in a folder of its own.

    python tests/export/page.py target/debug/engraft [--install]

It needs torch, onnx, onnxscript, onnxruntime and safetensors; --install installs them with pip.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

PACKAGES = ["torch", "onnx", "onnxscript", "onnxruntime", "safetensors"]
PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "pytorch.md"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("engraft", type=pathlib.Path)
    arguments.add_argument("--install", action="store_true")
    options = arguments.parse_args()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and options.install:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
        importlib.invalidate_caches()
    elif missing:
        sys.exit(f"NOT RUN: {', '.join(missing)} missing; say --install to install them")
    warnings.filterwarnings("ignore")
    os.environ["PATH"] = f"{options.engraft.resolve().parent}{os.pathsep}{os.environ['PATH']}"
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5, "the page has lost its code"
    names = {"__name__": "page"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        for language, code in blocks:
            if language == "python":
                exec(compile(code, str(PAGE), "exec"), names)
            else:
                subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
        os.chdir("/")
    print(f"all {len(blocks)} blocks of {PAGE.name} ran")


if __name__ == "__main__":
    main()
