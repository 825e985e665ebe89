#!/usr/bin/env bash
# Fill in users.acl.example with fresh passwords.
#
#   docker/redis/make-users.sh > docker/redis/users.acl
#
# The file goes to stdout and holds hashes only; the passwords go to stderr, once: keep them.
set -euo pipefail
text=$(<"$(dirname "$0")/users.acl.example")
while read -r user placeholder; do
  password=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
  hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
  text=${text/"$placeholder"/"$hash"}
  echo "$user $password" >&2
done <<'USERS'
operator OPERATOR_PASSWORD_SHA256
avatar-worker WORKER_PASSWORD_SHA256
avatar-api API_PASSWORD_SHA256
USERS
echo "$text"
