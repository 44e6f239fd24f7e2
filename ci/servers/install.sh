#!/bin/sh
# Installs the servers that this folder pins and that are not packages of Debian: install.sh TOOLS
set -eu
source=$(dirname "$0")
tools=$1
mkdir -p "$tools"

garage=2.5.0
if ! [ -x "$tools/garage-$garage/bin/garage" ]; then
    echo "Compiling Garage $garage, with few optimizations (once, about 15 minutes on two cores)" >&2
    # Cargo puts the program in its place last. Run outside the workspace, whose settings are not for Garage.
    cd "$tools"
    CARGO_TARGET_DIR=$tools/garage-build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        cargo install garage --quiet --locked --version "$garage" --root "$tools/garage-$garage" \
        --no-default-features --features bundled-libs,sqlite
    rm -r "$tools/garage-build"
    cd - >/dev/null
fi

python=$tools/servers-python
if ! cmp --silent "$source/requirements.txt" "$python/requirements.txt"; then
    echo "Installing moto and rclone" >&2
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$source/requirements.txt"
    # Copied last, so that an interrupted installation is made again.
    cp "$source/requirements.txt" "$python"
fi
