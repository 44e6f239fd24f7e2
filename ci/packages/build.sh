#!/usr/bin/env bash
# Builds a part of the workspace for a platform, as it is shipped. Prints the folder of the results.
#
#     build.sh TRIPLE CARGO-ARGUMENT…
#
# Where rustup has no standard library for the platform, or with the variable DIST_WITHOUT_RUSTUP, Debian's newer Rust
# compiles the standard library too. The linker is zig for Linux, and mingw-w64 for Windows.
set -euo pipefail
cd "$(dirname "$0")/../.."

triple=$1
shift
# The profile of shipped libraries. A profile called `dist` would be built in the folder of the packages.
profile=shipped
# Libraries for Linux are linked with the glibc of CentOS 7 (2012).
glibc=2.17
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo=(cargo)
arguments=(--locked --profile "$profile" "$@")
export CARGO_TARGET_DIR=$target

if [ -n "${DIST_WITHOUT_RUSTUP:-}" ] || ! rustup target add "$triple" > /dev/null; then
    echo "using Debian's Rust for $triple" >&2
    ci/packages/require.sh rustc-web cargo-web rust-web-src >&2
    # Compiling the standard library is not a stable option yet.
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
    cargo=(/usr/bin/cargo)
    arguments+=("-Zbuild-std=std,panic_unwind")
    # Two compilers in one folder would discard each other's results.
    CARGO_TARGET_DIR=$target/debian-rust
fi

# The folders of this machine must not appear in the results. The last flag that matches a path counts.
"${cargo[@]}" fetch --locked >&2
cargo_home=${CARGO_HOME:-$HOME/.cargo}
flags=("--remap-path-prefix=$cargo_home=/cargo")
for registry in "$cargo_home"/registry/src/*; do
    # A registry's folder is named after its host.
    flags+=("--remap-path-prefix=$registry=/cargo/registry")
done
flags+=("--remap-path-prefix=$PWD=/workspace" "--remap-path-prefix=$target=/target")

if [[ $triple = *-windows-* ]]; then
    ci/packages/require.sh gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 >&2
    cargo+=(build --target "$triple")
    # aws-lc contains the objects of its assembler code for Windows, so that the assembler NASM is not needed.
    export AWS_LC_SYS_PREBUILT_NASM=1
    flags+=("-Clink-arg=-Wl,--no-insert-timestamp")
else
    PATH=$(ci/packages/zig.sh "$target/dist-tools/zig"):$PATH
    cargo+=(zigbuild --target "$triple.$glibc")
fi

# A developer's own flags would change what is shipped.
unset RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${flags[@]}")
export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
"${cargo[@]}" "${arguments[@]}" >&2
echo "$CARGO_TARGET_DIR/$triple/$profile"
