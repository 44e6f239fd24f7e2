#!/bin/sh
# rclone serves a folder with S3's protocol.
. "$(dirname "$0")/common.sh"

mkdir -p "$folder/files/$bucket"
start rclone "$tools/servers-python/bin/rclone" serve s3 "$folder/files" --config '' --addr "127.0.0.1:$port" \
    --auth-key "$access_key,$secret_key"
eventually s3 head_bucket
ready_s3 http "$checks_signatures"
