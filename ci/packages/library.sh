#!/usr/bin/env bash
# Writes the plugin's library in ARCHIVE, a .deb, .tar.gz or .zip, to standard output.
#
#     library.sh ARCHIVE
set -euo pipefail

case $1 in
*.deb) dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout --wildcards '*.so' ;;
*.tar.gz) tar --extract --gzip --to-stdout --wildcards --file "$1" '*.so' ;;
*.zip) unzip -p "$1" '*.dll' ;;
esac
