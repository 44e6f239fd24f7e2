#!/usr/bin/env bash
# Downloads cargo-zigbuild and zig into FOLDER at first use. Prints the folder of the programs.
#
#     zig.sh FOLDER
set -euo pipefail

# A linker and the old versions of the C library. Both packages contain binaries, and nothing is compiled.
packages=(cargo-zigbuild==0.24.0 ziglang==0.17.0)
complete=$1/${packages[0]}-${packages[1]}

if [ ! -f "$complete" ]; then
    if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
        # Debian's Python does not include the module for virtual environments.
        "$(dirname "$0")/require.sh" python3-venv >&2
    fi
    echo "downloading ${packages[*]} (about 100 MB)" >&2
    rm --recursive --force "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet "${packages[@]}" >&2
    touch "$complete"
fi
echo "$1/bin"
