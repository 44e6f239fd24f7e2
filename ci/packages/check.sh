#!/usr/bin/env bash
# Verifies the packages in FOLDER: the checksums, and the library and the program in every archive. Prints a table.
#
#     check.sh FOLDER
set -euo pipefail
export LC_ALL=C

scripts=$(cd "$(dirname "$0")" && pwd)
binary=$(mktemp)
trap 'rm --force "$binary"' EXIT

cd "$1"
sha256sum --check --strict --quiet SHA256SUMS
existing=$(find . -mindepth 1 ! -name SHA256SUMS -printf '%P\n' | sort)
difference=$(diff <(sed 's/^[^ ]*  //' SHA256SUMS) <(echo "$existing")) || {
    printf 'SHA256SUMS does not list the files that exist:\n%s\n' "$difference" >&2
    exit 1
}
printf '\n%s:\n\n%-60s %10s  contents\n' "$PWD" file bytes
for file in $existing; do
    case $file in
    orthanc-envelope*.deb) kinds=program ;;
    *.deb) kinds=library ;;
    *.tar.gz | *.zip) kinds='library program' ;;
    *) kinds= ;;
    esac
    facts=
    for kind in $kinds; do
        if ! { "$scripts/packed.sh" "$file" "$kind" > "$binary" && needs=$("$scripts/check-binary.sh" "$binary" "$kind"); }; then
            echo "$file cannot be shipped" >&2
            exit 1
        fi
        facts+="${facts:+; }$kind $(stat --format=%s "$binary") bytes${needs:+, $needs}"
    done
    printf '%-60s %10d  %s\n' "$file" "$(stat --format=%s "$file")" "$facts"
done
printf '\nAll files match SHA256SUMS, and every library and program can be loaded on old systems.\n'
