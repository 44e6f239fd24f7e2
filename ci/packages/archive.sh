#!/usr/bin/env bash
# Packs the files of FOLDER into ARCHIVE, a .tar.gz or .zip. The same files give the same bytes: entries are sorted and
# have one owner and the time SOURCE_DATE_EPOCH, and only the program can be executed.
#
#     archive.sh FOLDER ARCHIVE
set -euo pipefail
# zip writes local times, and sort depends on the language.
export LC_ALL=C TZ=UTC

cd "$(dirname "$1")"
name=$(basename "$1")
find "$name" -type f -exec chmod 644 {} + -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
find "$name" -type f -name orthanc-envelope -exec chmod 755 {} +
case $2 in
*.tar.gz)
    find "$name" -type f | sort |
        tar --create --format=gnu --owner=root:0 --group=root:0 --files-from=- | gzip --best --no-name > "$2"
    ;;
*.zip)
    find "$name" -type f | sort | zip --quiet -9 -X "$2" -@
    ;;
esac
