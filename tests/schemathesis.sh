#!/usr/bin/env bash
# Sends requests that schemathesis makes of openapi.yaml to a server on loopback, without a key and with one: no answer may be a
# server's error, or one that the description does not know.
#   tests/schemathesis.sh [PROGRAM [EXAMPLES]]   EXAMPLES for each operation; 1000 make more than 50,000 requests
set -euo pipefail
program="${1:-target/debug/engraft}" examples="${2:-1000}"
command -v schemathesis >/dev/null || { echo 'schemathesis is not here: pip install schemathesis' >&2; exit 2; }

folder="$(mktemp -d)"
server=
stop() { [ -z "$server" ] || { kill -TERM "$server" && wait "$server" || true; }; server=; }
trap 'stop; rm -rf "$folder"' EXIT

# What clients of tus send are bytes like any others. Nothing works here (no workers), so whoever waits for a change waits in vain: a
# second at most, or a run would last as long as its waits.
cat >"$folder/hooks.py" <<'HOOKS'
import re

import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@schemathesis.hook
def before_call(context, case, kwargs):
    for name, value in (case.headers or {}).items():
        if name.lower() == "prefer":
            case.headers[name] = re.sub(r"wait=\d{1,6}\b", "wait=1", value)
HOOKS
export SCHEMATHESIS_HOOKS="$folder/hooks.py"

# Runs against a server on the folder $1; more arguments go to schemathesis.
against() {
    local data="$folder/$1"; shift
    "$program" serve --listen 127.0.0.1:0 --data-dir "$data" --workers 0 --log warn >"$data.log" 2>&1 & server=$!
    local address=
    for _ in $(seq 100); do
        address="$(grep -oE '127\.0\.0\.1:[0-9]+' "$data.log" | head -1 || true)"
        [ -n "$address" ] && curl -fsS "http://$address/readyz" >/dev/null 2>&1 && break
        sleep 0.1
    done
    [ -n "$address" ] || { cat "$data.log" >&2; exit 1; }
    schemathesis run openapi.yaml --url "http://$address" --max-examples "$examples" --continue-on-failure --no-color \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --generation-database none --seed 1 --request-timeout 30 --suppress-health-check all "$@"
    stop
}

against open
key="$("$program" keys create --data-dir "$folder/keyed" --scope admin 2>/dev/null)"
against keyed --header "Authorization: Bearer $key"
