# Shared by the scripts that start a server: NAME.sh TOOLS FOLDER PORT PORT PORT [UPSTREAM]
#
# Such a script starts a server in FOLDER, on the first of these ports of 127.0.0.1 (the others are for its inner
# connections), with a bucket that exists. When the server is ready, it writes FOLDER/server.json, which the tests
# read, and waits. Everything ends with the script, even if it is killed. UPSTREAM is the port of a server to forward to.
set -eu
here=$(dirname "$0")
tools=$1
folder=$2
port=$3
second_port=$4
third_port=$5
upstream=${6:-}

bucket=bucket
region=us-east-1
# Garage requires this form. Everything that listens is on the loopback, and holds only generated images.
access_key=GK31c2f218a2e44f485b94239e
secret_key=b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835

# Starts a program of the server, which ends with this script: start NAME PROGRAM ARGUMENT…
start() {
    log=$folder/$1.log
    shift
    setpriv --pdeathsig KILL "$@" >"$log" 2>&1 &
}

# Repeats a command until it succeeds: eventually COMMAND ARGUMENT…
eventually() {
    for _ in $(seq 300); do
        if "$@" >"$folder/last-try.log" 2>&1; then return; fi
        sleep 0.2
    done
    echo "$0: not within a minute: $*" >&2
    cat "$folder"/*.log >&2
    exit 1
}

# Calls a method of a client of the server, for example: s3 create_bucket
s3() {
    NO_PROXY='*' "$tools/servers-python/bin/python" -c "import boto3
boto3.client('s3', '$region', endpoint_url='http://127.0.0.1:$port', aws_access_key_id='$access_key',
    aws_secret_access_key='$secret_key').$1(Bucket='$bucket')"
}

# Describes the server to the tests: ready_s3 SCHEME OTHER_MEMBERS
ready_s3() {
    cat >"$folder/unfinished.json" <<END
{
    "Plugin": "aws-s3",
    "Port": $port$2,
    "Section": {
        "BucketName": "$bucket", "Region": "$region", "VirtualAddressing": false,
        "AccessKey": "$access_key", "SecretKey": "$secret_key",
        "Endpoint": "$1://127.0.0.1:$port"
    }
}
END
    mv "$folder/unfinished.json" "$folder/server.json"
    wait
}

# The members of a server that checks signatures: what it refuses, and what its answer says.
checks_signatures=', "Refused": {"SecretKey": "wrong-secret-key"}, "Refusal": "HTTP 403"'
