"""What the programs of this folder share: their arguments, and the packages that they need."""

import argparse
import importlib
import importlib.util
import pathlib
import subprocess
import sys


def arguments(about, packages, **more):
    """The arguments of a program: the command to test, and `more`. Ends aloud where packages are missing and nobody says --install."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("engraft", type=pathlib.Path)
    parser.add_argument("--install", action="store_true")
    for name, settings in more.items():
        parser.add_argument(name, **settings)
    options = parser.parse_args()
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and options.install:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
        importlib.invalidate_caches()
    elif missing:
        sys.exit(f"NOT RUN: {', '.join(missing)} missing; say --install to install them")
    return options
