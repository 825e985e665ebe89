#!/usr/bin/env bash
# Hold what the image installs against PyPI's advisories.  Apart from the lint, because what was
# clean yesterday may not be today, and because it needs pypi.org itself: a mirror has packages but
# no advisories, and then this fails ("could not be audited") instead of passing.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/audit-venv
wanted="pip-audit==2.10.1"
if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
  "${PYTHON:-python3.11}" -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$wanted"
  echo "$wanted" >"$venv/.wanted"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# torch is chosen by its build and not by a hash, so the locks do not have it (requirements/README.md).
sed -nE 's/.*torch===([0-9.]+)".*/torch==\1/p' docker/Dockerfile | head -1 >"$work/torch"
[ -s "$work/torch" ]
for list in "$work/torch" "${@:-requirements/licensed.lock}"; do
  "$venv/bin/pip-audit" --strict --disable-pip --no-deps --progress-spinner off --requirement "$list"
done
