#!/bin/sh
# Ceph with a monitor, one store in memory and radosgw.
. "$(dirname "$0")/common.sh"

mkdir -p "$folder/mon" "$folder/osd"
fsid=$(cat /proc/sys/kernel/random/uuid)
addresses="[v2:127.0.0.1:$second_port,v1:127.0.0.1:$third_port]"
cat >"$folder/ceph.conf" <<END
[global]
fsid = $fsid
mon initial members = a
mon host = $addresses
public addr = 127.0.0.1
auth allow insecure global id reclaim = false
keyring = $folder/keyring
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
mon allow pool size one = true
# A developer's disk may be nearly full.
mon data avail crit = 1
mon data = $folder/mon
osd data = $folder/osd
run dir = $folder
admin socket =
pid file =
log to stderr = true
log file =
mon cluster log to file = false
[client.admin]
rgw frontends = beast endpoint=127.0.0.1:$port
rgw data = $folder
END
export CEPH_CONF="$folder/ceph.conf"
key() {
    ceph-authtool "$folder/keyring" --gen-key "$@" >/dev/null
}
ceph-authtool --create-keyring "$folder/keyring" >/dev/null
key --name mon. --cap mon 'allow *'
key --name client.admin --cap mon 'allow *' --cap osd 'allow *'
key --name osd.0 --cap mon 'allow *' --cap osd 'allow *'
monmaptool --create --addv a "$addresses" --fsid "$fsid" "$folder/monmap" >/dev/null
ceph-mon --mkfs --id a --monmap "$folder/monmap" --keyring "$folder/keyring" >"$folder/mon-mkfs.log" 2>&1
start mon ceph-mon -f --id a
osd=$(cat /proc/sys/kernel/random/uuid)
eventually timeout 20 ceph osd new "$osd"
ceph-osd --mkfs --id 0 --osd-uuid "$osd" >"$folder/osd-mkfs.log" 2>&1
start osd ceph-osd -f --id 0
start rgw radosgw -f --name client.admin
eventually curl --silent --noproxy '*' --output /dev/null "http://127.0.0.1:$port"
radosgw-admin user create --uid test --display-name test --access-key "$access_key" --secret-key "$secret_key" \
    >"$folder/user.log" 2>&1
eventually s3 create_bucket
ready_s3 http "$checks_signatures"
