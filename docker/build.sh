#!/usr/bin/env bash
# Build the image with docker, or with buildah where there is no docker engine.
#
#   docker/build.sh [--variant cpu|cu130] [--tag NAME] [--models FOLDER] [more arguments for the builder]
#
# --models bakes weights in: a folder that `models-sync pull` made.  Such an image is yours alone.
# The vendors' code goes in where `make vendors` brought it.
# This machine's pip configuration and certificate authorities, if it needs any to reach a
# registry, are handed in as build secrets: nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=cu130 tag=localhost/avatar-worker:main target=worker
while [ $# -gt 0 ]; do
  case "$1" in
    --variant) variant=$2 && shift 2 ;;
    --tag) tag=$2 && shift 2 ;;
    --models) models=$(realpath "$2") target=embedded-models && shift 2 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit ;;
    *) break ;;
  esac
done

# With "-dirty" at its end where a file differs from the commit: an image must not claim to be what
# it is not.
commit=$(git describe --always --abbrev=40 --dirty --exclude '*' 2>/dev/null || true)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# `pip config list` gives what holds here, wherever it was set; only its [global] part matters.
{
  echo "[global]"
  pip config list 2>/dev/null | sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
    grep -vE '^(cert|disable-pip-version-check)' | awk -F' = ' '!seen[$1]++' || true
} >"$work/pip.conf"
args=(
  --target "$target"
  --build-arg "TORCH_VARIANT=$variant"
  --build-arg "GIT_COMMIT=$commit"
  --build-arg "BUILD_TIME=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  --secret "id=pip_conf,src=$work/pip.conf"
)
if [ -n "${models:-}" ]; then
  args+=(--build-context "models=$models")
  [ -z "${MODEL_SYNC_PUBLIC_KEY:-}" ] || args+=(--build-arg "MODEL_SYNC_PUBLIC_KEY=$MODEL_SYNC_PUBLIC_KEY")
fi
authorities=${PIP_CERT:-${SSL_CERT_FILE:-}}
[ -n "$authorities" ] && args+=(--secret "id=ca,src=$authorities")
[ -n "${BASE_IMAGE:-}" ] && args+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")

if docker info >/dev/null 2>&1; then
  DOCKER_BUILDKIT=1 docker build "${args[@]}" -t "$tag" -f docker/Dockerfile "$@" .
elif command -v buildah >/dev/null; then
  # Folders of wheels that pip is configured to look in are made visible to the build.
  while read -r folder; do
    [ -d "$folder" ] && args+=(--volume "$folder:$folder:ro")
  done < <(grep -oE '(file://)?/[^ ]+' "$work/pip.conf" | sed 's#^file://##; s#/simple/*$##' | sort -u)
  buildah bud --runtime runc --layers --network host --format docker \
    "${args[@]}" -t "$tag" -f docker/Dockerfile "$@" .
else
  echo "Neither a docker engine nor buildah is here (Debian: apt-get install buildah runc)." >&2
  exit 1
fi
echo "$tag in $SECONDS s, from ${commit:-no commit}"
