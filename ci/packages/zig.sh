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
    # The hashes are those of the files for Linux on x86-64 and ARM: nothing else may link what is shipped.
    "$1/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes --requirement /dev/stdin >&2 << REQUIREMENTS
${packages[0]} \
    --hash=sha256:484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957 \
    --hash=sha256:6942e4320f7b05d8fb29e0a8ce5670bcbb3d254275100b85b5b7c86552f9a744
${packages[1]} \
    --hash=sha256:97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b \
    --hash=sha256:d2804f94f54f7fcf8169f4b212a619ad688a4e2e6592e976f0cf2e58e2cd8af3
REQUIREMENTS
    touch "$complete"
fi
echo "$1/bin"
