#!/usr/bin/env bash
# Whether the CUDA engine is right, and how fast it is beside PyTorch, on a machine with an NVIDIA GPU. Needs a Python with torch,
# numpy and safetensors, and no network; ENGRAFT_GPU_BENCH names engraft's half, which is built elsewhere.
#
#     benches/gpu/check.sh right     # at most four minutes
#     benches/gpu/check.sh fast      # at most five; options of fast.py may follow
#
# The table comes last; all numbers and logs are in $OUT, which is target/gpu by default.
set -euo pipefail

case "${1:-}" in
right) seconds=245 ;;
fast) seconds=300 ;;
*)
    echo "usage: $0 right|fast [options]" >&2
    exit 2
    ;;
esac
which="$1"
shift
here="$(cd "$(dirname "$0")" && pwd)"
export OUT="${OUT:-$here/../../target/gpu}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export ENGRAFT_GPU_BENCH="${ENGRAFT_GPU_BENCH:-$here/../../target/release/engraft-gpu}"
[ -x "$ENGRAFT_GPU_BENCH" ] || { echo "no program $ENGRAFT_GPU_BENCH: set ENGRAFT_GPU_BENCH" >&2; exit 2; }
mkdir -p "$OUT"

# NVIDIA's libraries of Python's packages, then the driver's folder.
libraries="$(python3 - <<'PYTHON'
import pathlib, subprocess, sys

folders = []
for place in map(pathlib.Path, sys.path):
    folders += sorted({found.parent for found in place.glob("nvidia/**/lib*.so*")})
known = subprocess.run("ldconfig -p", shell=True, capture_output=True, text=True).stdout
driver = [line.split(" => ")[1] for line in known.splitlines() if line.split()[:1] == ["libcuda.so.1"]]
driver += ["/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia/lib/libcuda.so.1", "/usr/lib64/libcuda.so.1"]
driver += map(str, pathlib.Path("/usr/local/nvidia").glob("**/libcuda.so.1"))
folders += [found.parent for found in map(pathlib.Path, driver) if found.exists()][:1]
print(":".join(dict.fromkeys(map(str, folders))))
PYTHON
)"
export ENGRAFT_CUDA_LIBRARIES="${ENGRAFT_CUDA_LIBRARIES:+$ENGRAFT_CUDA_LIBRARIES:}$libraries"
echo "libraries: $ENGRAFT_CUDA_LIBRARIES"

# The programs keep to a time of their own; this is for when they cannot.
exec timeout --kill-after=10 "$seconds" python3 "$here/$which.py" "$@"
