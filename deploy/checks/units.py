"""The units: what systemd says of them, how much they leave open, and that each leaves time to drain.

    python3 deploy/checks/units.py
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "systemd"
# Of 100; a unit without any protection has 96.
EXPOSURE = 20
# Seconds that jobs get to end without --drain-timeout.
DRAIN = 30


class Invalid(Exception):
    """A unit is not what it should be."""


def analyze(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60)


def verify(unit: Path):
    verdict = analyze("verify", "--man=no", str(unit))
    if verdict.returncode != 0 or verdict.stderr.strip():
        raise Invalid(f"{unit.name}: {verdict.stderr.strip()}")


def check(unit: Path):
    verify(unit)
    verdict = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(unit))
    if verdict.returncode != 0:
        raise Invalid(f"{unit.name} leaves too much open:\n{verdict.stdout}")


def settings(text: str) -> dict[str, list[str]]:
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def check_promises(name: str, text: str):
    unit = settings(text)
    if unit["KillMode"] != ["mixed"] or int(unit["TimeoutStopSec"][0]) < DRAIN + 10 or unit["OOMPolicy"] != ["continue"]:
        raise Invalid(f"{name} does not let jobs end")
    state = unit["StateDirectory"][0]
    if f"ENGRAFT_DATA_DIR=/var/lib/{state}" not in unit["Environment"]:
        raise Invalid(f"{name} has its data elsewhere than in /var/lib/{state}")
    if unit["User"] != ["engraft"]:
        raise Invalid(f"{name} has no user of its own")


def main():
    units = sorted(FOLDER.glob("*.service"))
    for unit in units:
        check_promises(unit.name, unit.read_text())
    if shutil.which("systemd-analyze") is None:
        print(f"units: {len(units)} read; not verified: systemd-analyze is not installed")
        return
    version = analyze("--version").stdout.split("\n")[0]
    for unit in units:
        with tempfile.TemporaryDirectory() as folder:
            # As an instance, and with a program that is there: whether this machine has engraft is not the question.
            copy = Path(folder) / unit.name.replace("@.", "@one.")
            copy.write_text(unit.read_text().replace("/usr/local/bin/engraft", shutil.which("true")))
            check(copy)
            drop_in = Path(folder) / f"{copy.name}.d"
            drop_in.mkdir()
            shutil.copy(FOLDER / "gpu.conf", drop_in)
            verify(copy)
    print(f"units: {', '.join(unit.name for unit in units)}, gpu.conf: verified by {version}, exposure below {EXPOSURE} of 100; not started")


if __name__ == "__main__":
    try:
        main()
    except Invalid as fault:
        sys.exit(f"units: {fault}")
