#!/bin/sh
# moto imitates AWS for tests. It checks neither signatures nor checksums.
. "$(dirname "$0")/common.sh"

start moto "$tools/servers-python/bin/python" -m moto.server --host 127.0.0.1 --port "$port"
eventually s3 create_bucket
ready_s3 http ''
