#!/bin/sh
# Installs the version of Azurite that this folder pins, unless it is installed already: install.sh FOLDER
set -eu
source=$(dirname "$0")
folder=$1
unfinished=$folder-unfinished

for file in .npmrc package.json package-lock.json no-telemetry/package.json no-telemetry/index.js; do
    cmp --silent "$source/$file" "$folder/$file" || missing=1
done
[ -n "${missing:-}" ] || exit 0

echo "Installing Azurite, Microsoft's emulator of Azure Blob Storage" >&2
# Renamed at the end, so that an interrupted installation is never used.
rm -rf "$unfinished"
mkdir -p "$(dirname "$folder")"
cp -r "$source" "$unfinished"
cd "$unfinished"
# npm warns that Azurite needs a newer Node: that concerns parts of Azurite that are not used here.
npm ci --loglevel error
rm -rf "$folder"
mv "$unfinished" "$folder"
