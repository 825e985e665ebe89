#!/usr/bin/env bash
# Resolve pyproject.toml into hashed locks without hosts.  torch and CUDA's packages are left
# out: they are chosen at install time (requirements/README.md).
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
compile() { # compile OUT ARGS...
  local out=$1
  shift
  "$uv" pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
    --python-version 3.11 --output-file "$out" "$@"
}
# What torch brings along on Linux is whatever resolves as nvidia-*, cuda-* or triton.
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
"$uv" pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 \
  --output-file "$tmp" --extra demo --extra recipe --group dev pyproject.toml
mapfile -t skip < <(sed -nE 's/^((nvidia-|cuda-)[a-z0-9-]+|triton|torch)==.*/--no-emit-package=\1/p' "$tmp")
compile requirements/demo.lock --extra demo "${skip[@]}" pyproject.toml
compile requirements/run.lock -c requirements/demo.lock "${skip[@]}" pyproject.toml
compile requirements/licensed.lock --extra licensed -c requirements/demo.lock "${skip[@]}" pyproject.toml
compile requirements/dev.lock --extra demo --group dev -c requirements/demo.lock "${skip[@]}" pyproject.toml
compile requirements/recipe.lock --extra recipe -c requirements/dev.lock "${skip[@]}" pyproject.toml
compile requirements/vendors.lock --extra vendors -c requirements/demo.lock "${skip[@]}" pyproject.toml
