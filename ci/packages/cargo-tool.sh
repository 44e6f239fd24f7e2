#!/usr/bin/env bash
# Compiles a cargo subcommand at first use. Prints its program.
#
#     cargo-tool.sh NAME VERSION
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${CARGO_TARGET_DIR:-$PWD/target}/dist-tools
# cargo lists here what it has installed.
if ! grep --quiet --fixed-strings "\"$1 $2 " "$folder/.crates.toml" 2> /dev/null; then
    echo "compiling $1 $2, which takes some minutes and is done once" >&2
    # Unoptimized tools compile faster, and run for seconds.
    CARGO_TARGET_DIR=$folder/build cargo install --debug --locked --root "$folder" --version "$2" "$1" >&2
    rm --recursive --force "$folder/build"
fi
echo "$folder/bin/$1"
