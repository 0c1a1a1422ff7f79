"""Runs the code of docs/pytorch.md, block by block, in a folder of its own.

    python tests/export/page.py target/debug/engraft [--install]

It needs torch, onnx, onnxscript, onnxruntime and safetensors; --install installs them with pip.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import common

PACKAGES = ["torch", "onnx", "onnxscript", "onnxruntime", "safetensors"]
PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "pytorch.md"


def main():
    options = common.arguments(__doc__, PACKAGES)
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
