#!/bin/sh
# Makes a minimal Debian in FOLDER, with the packages of Orthanc and lintian downloaded but not installed. An existing
# folder is kept as it is.
#
#     clean-debian.sh RELEASE FOLDER
set -eu

release=$1
folder=$2
# shellcheck source=crates/testing/orthanc-roots/once.sh
. "$(dirname "$0")/../../crates/testing/orthanc-roots/once.sh"
# The Orthanc of Debian unstable needs systemd-tmpfiles, which all machines have, but not this Debian.
debootstrap --variant=minbase --include=systemd-standalone-tmpfiles "$release" "$new" \
    ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
# As in container images, packages start no services.
printf '#!/bin/sh\nexit 101\n' > "$new/usr/sbin/policy-rc.d"
chmod 755 "$new/usr/sbin/policy-rc.d"
# The index is as old as the folder.
echo 'Acquire::Check-Valid-Until "false";' > "$new/etc/apt/apt.conf.d/90-kept"
chroot "$new" apt-get --quiet --error-on=any update
DEBIAN_FRONTEND=noninteractive chroot "$new" \
    apt-get --quiet --yes --no-install-recommends --download-only install ca-certificates orthanc lintian
mv "$new" "$folder"
