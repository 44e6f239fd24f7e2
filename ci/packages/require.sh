#!/usr/bin/env bash
# Installs the Debian packages that are missing.
#
#     require.sh PACKAGE…
set -euo pipefail

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} != 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing; run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "${missing[@]}"
