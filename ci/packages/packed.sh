#!/usr/bin/env bash
# Writes the plugin's library or the program orthanc-envelope, as packed in ARCHIVE, to standard output. Fails if the
# archive, a .deb, .tar.gz or .zip, does not contain it.
#
#     packed.sh ARCHIVE library|program
set -euo pipefail

case $1:$2 in
*.deb:library) dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout --wildcards './usr/lib/orthanc/*.so' ;;
*.deb:program) dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout ./usr/bin/orthanc-envelope ;;
*.tar.gz:library) tar --extract --gzip --to-stdout --wildcards --file "$1" '*/lib*.so' ;;
*.tar.gz:program) tar --extract --gzip --to-stdout --wildcards --file "$1" '*/orthanc-envelope' ;;
*.zip:library) unzip -p "$1" '*.dll' ;;
*.zip:program) unzip -p "$1" '*/orthanc-envelope.exe' ;;
esac
