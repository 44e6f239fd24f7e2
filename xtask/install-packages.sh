#!/bin/sh
# Installs packages of Debian or Ubuntu, as root, without starting the services that they contain:
# install-packages.sh PACKAGE…
set -eu

# Maintainer scripts ask this program whether they may start a service. One that exists is the administrator's.
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "$@"
case " $* " in
    # Keeps the server on port 8042 from starting at the next boot.
    *" orthanc "*) update-rc.d orthanc disable ;;
esac
