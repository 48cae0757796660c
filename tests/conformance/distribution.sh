#!/usr/bin/env bash
# Runs OCI's distribution-spec conformance suite against `silo registry serve`, or against the
# registry named by REGISTRY (host:port, plain HTTP). $1 is a folder with the suite's program
# `conformance` (`go build` in conformance/ of its source); OCI_VERSION chooses what is asked for
# (1.1, or 1.1+dev), as the suite's other variables do.
set -euo pipefail
folder=$(realpath "$1")
work=$(mktemp -d /tmp/silo-distribution-XXXXXX)
server=
trap '[ -z "$server" ] || kill "$server"; wait; rm -rf "$work"' EXIT
registry=${REGISTRY:-}
if [ -z "$registry" ]; then
  mkfifo "$work/ready"
  "$SILO" registry serve --root "$work/root" --listen 127.0.0.1:0 --ready-on-stdout \
    ${SPARSE:+--allow-sparse} --log-level warn >"$work/ready" &
  server=$!
  read -r registry <"$work/ready"
fi
export OCI_REGISTRY=${registry#http://} OCI_TLS=disabled OCI_RESULTS_DIR=${RESULTS:-$work/results}
[ -z "${SPARSE:-}" ] || export OCI_DATA_SPARSE=true
"$folder/conformance" >"$work/log" 2>&1 || true
grep -E ': (FAIL|Error)' "$work/log" || true
sed -n '/^OCI Conformance Result/,$p' "$work/log"
grep -q '^OCI Conformance Result: Pass' "$work/log"
