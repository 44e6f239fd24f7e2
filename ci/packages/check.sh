#!/usr/bin/env bash
# Verifies the packages in FOLDER: the checksums, and the library in every archive. Prints a table.
#
#     check.sh FOLDER
set -euo pipefail
export LC_ALL=C

scripts=$(cd "$(dirname "$0")" && pwd)
library=$(mktemp)
trap 'rm --force "$library"' EXIT

cd "$1"
sha256sum --check --strict --quiet SHA256SUMS
existing=$(find . -mindepth 1 ! -name SHA256SUMS -printf '%P\n' | sort)
difference=$(diff <(sed 's/^[^ ]*  //' SHA256SUMS) <(echo "$existing")) || {
    printf 'SHA256SUMS does not list the files that exist:\n%s\n' "$difference" >&2
    exit 1
}
printf '\n%s:\n\n%-60s %10s  library\n' "$PWD" file bytes
for file in $existing; do
    facts=
    case $file in
    *.deb | *.tar.gz | *.zip)
        "$scripts/library.sh" "$file" > "$library"
        facts=$("$scripts/check-library.sh" "$library") || {
            echo "$file cannot be shipped" >&2
            exit 1
        }
        facts="$(stat --format=%s "$library") bytes${facts:+, $facts}"
        ;;
    esac
    printf '%-60s %10d  %s\n' "$file" "$(stat --format=%s "$file")" "$facts"
done
printf '\nAll files match SHA256SUMS, and every library can be loaded on old systems.\n'
