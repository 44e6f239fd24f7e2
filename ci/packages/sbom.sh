#!/usr/bin/env bash
# Prints the software bill of materials of a package of the workspace, which is in FOLDER, in CycloneDX's JSON: the crates
# in its library or program, with their versions and licences. The time is SOURCE_DATE_EPOCH, and the bill has no random number.
#
#     sbom.sh FOLDER TRIPLE
set -euo pipefail
cd "$(dirname "$0")/../.."

cyclonedx=$(ci/packages/cargo-tool.sh cargo-cyclonedx 0.5.9)
# The tool writes a file of this name alongside each Cargo.toml of the workspace.
name=dist-sbom
trap 'find crates plugins xtask -name "$name.json" -delete' EXIT
"$cyclonedx" cyclonedx --quiet --format json --target "$2" --override-filename "$name" \
    --manifest-path "$1/Cargo.toml" >&2
# Crates of the workspace are named by their folder on this machine.
sed "s|$PWD/||g" "$1/$name.json"
