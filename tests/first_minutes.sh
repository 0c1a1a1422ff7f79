#!/usr/bin/env bash
# README's first five minutes from an empty folder: the lines of its code blocks, taken from README.md as they stand there, on small data.
# Each line's exit code counts. Needs bash, curl and jq.
#   tests/first_minutes.sh [PROGRAM]
set -euo pipefail
program="$(realpath "${1:-target/debug/engraft}")" readme="$(realpath "$(dirname "$0")/../README.md")"
folder="$(mktemp -d)"
server=
stop() { [ -z "$server" ] || { kill -TERM "$server" && wait "$server" || true; }; rm -rf "$folder"; }
trap stop EXIT
cd "$folder"

# The code block of README.md that holds the text $1, which is in one alone.
block() {
    awk -v wanted="$1" '
        /^```/ { if (open && index(text, wanted)) { printf "%s", text; found++ } open = !open; text = ""; next }
        open { text = text $0 "\n" }
        END { if (found != 1) { print "README.md has " found + 0 " blocks with: " wanted > "/dev/stderr"; exit 1 } }' "$readme"
}

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

# The program goes by its name, as after an installation; README's first block builds it with cargo, which CI has done.
mkdir bin && ln -s "$program" bin/engraft && PATH="$folder/bin:$PATH"
demo="$(block 'cargo run --release -- demo' | sed -nE 's/^cargo run --release -- (demo)\b.*/\1/p')"

step "engraft $demo, small"
engraft "$demo" --images 500 --epochs 1 >demo.log
grep -q 'its digest is right' demo.log
[ -s engraft-demo/report.html ] && bash -n engraft-demo/repeat.sh

step 'the server'
# Two words of README are replaced: the port, for 8080 may be taken, and the way the program is called.
serve="$(block '-- serve --listen' | sed -E 's/^cargo run --release -- /engraft /; s/127\.0\.0\.1:8080/127.0.0.1:0/')"
$serve >server.log 2>&1 & server=$!
address=
for _ in $(seq 600); do
    address="$(grep -oE '127\.0\.0\.1:[0-9]+' server.log | head -1 || true)"
    [ -n "$address" ] && curl -fsS "http://$address/readyz" >/dev/null 2>&1 && break
    sleep 0.1
done
[ -n "$address" ] || { cat server.log >&2; exit 1; }

# The demo's letters stand in for the digits, which are a download.
cp engraft-demo/m0.safetensors engraft-demo/m1.safetensors .
cp engraft-demo/glyphs.npz mnist.tar

step 'the curl cycle'
block 'cat > job.json' | sed "s/localhost:8080/$address/" >cycle.sh
printf '[ "$STATE" = succeeded ]\nprintf "%%s" "$ID" >id\n' >>cycle.sh
bash -euo pipefail cycle.sh
[ -s fused.safetensors ] && jq -e '.members | length == 2' job.json >/dev/null

step "the program's own commands"
export ENGRAFT_URL="http://$address"
block 'engraft push' | sed "s/\bID\b/$(cat id)/g" >commands.sh
bash -euo pipefail commands.sh
[ -s fused.onnx ] && [ -s report.html ]

step 'without a server'
block 'engraft fuse --member m0.safetensors --member m1.safetensors --dataset mnist.tar --job' >local.sh
rm fused.safetensors
bash -euo pipefail local.sh
[ -s fused.safetensors ] && [ -s report.json ]

step 'done'
