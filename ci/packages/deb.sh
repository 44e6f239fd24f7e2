#!/usr/bin/env bash
# Packs a Debian package from FOLDER, which has its files and DEBIAN/control. Adds the checksums and the size. The
# same files give the same bytes: they belong to root, and their time is SOURCE_DATE_EPOCH.
#
#     deb.sh FOLDER PACKAGE.deb
set -euo pipefail
export LC_ALL=C

cd "$1"
find . -type f \( -name changelog -o -path './usr/share/man/*' \) -exec gzip --best --no-name {} +
find . -type d -exec chmod 755 {} +
find . -type f -exec chmod 644 {} +
find . -type f -path './usr/bin/*' -exec chmod 755 {} +
# preinst, postinst, prerm and postrm
find DEBIAN -name 'p*' -exec chmod 755 {} +
size=$(du --summarize --apparent-size --block-size=1024 --exclude=DEBIAN . | cut --fields=1)
sed --in-place "s/^Architecture: .*/&\nInstalled-Size: $size/" DEBIAN/control
find usr -type f -print0 | sort --zero-terminated | xargs --null md5sum > DEBIAN/md5sums
chmod 644 DEBIAN/md5sums
find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# With several threads, xz' result depends on the machine.
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build . "$2" > /dev/null
