#!/bin/sh
# Installs the npm packages that a folder pins, unless they are installed already: npm-install.sh SOURCE FOLDER
set -eu
source=$1
folder=$2
unfinished=$folder-unfinished

find "$source" -type f -printf '%P\n' | {
    while read -r file; do
        cmp --silent "$source/$file" "$folder/$file" || exit 1
    done
} && exit 0

echo "Installing $(basename "$folder") from npm" >&2
# Renamed at the end, so that an interrupted installation is never used.
rm -rf "$unfinished"
mkdir -p "$(dirname "$folder")"
cp -r "$source" "$unfinished"
cd "$unfinished"
# npm warns that Azurite needs a newer Node: that concerns parts of Azurite that are not used here.
npm ci --loglevel error
rm -rf "$folder"
mv "$unfinished" "$folder"
