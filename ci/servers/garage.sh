#!/bin/sh
# Garage, one node.
. "$(dirname "$0")/common.sh"

garage=$tools/garage-2.5.0/bin/garage
cat >"$folder/garage.toml" <<END
metadata_dir = "$folder/metadata"
data_dir = "$folder/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$second_port"
rpc_public_addr = "127.0.0.1:$second_port"
rpc_secret = "1799bccfd7411eddcf9ebd316bc1f5287ad12a68094e1c6ac6abde7e6feae1ec"
[s3_api]
api_bind_addr = "127.0.0.1:$port"
s3_region = "$region"
END
export GARAGE_CONFIG_FILE="$folder/garage.toml"
start garage "$garage" server
eventually "$garage" node id --quiet
eventually "$garage" layout assign --zone here --capacity 10G "$("$garage" node id --quiet | cut -d @ -f 1)"
"$garage" layout apply --version 1 >/dev/null
"$garage" key import --yes -n test "$access_key" "$secret_key" >/dev/null
"$garage" bucket create "$bucket" >/dev/null
"$garage" bucket allow --read --write "$bucket" --key test >/dev/null
eventually s3 head_bucket
ready_s3 http "$checks_signatures"
