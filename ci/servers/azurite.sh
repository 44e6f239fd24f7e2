#!/bin/sh
# Azurite, Microsoft's emulator of Azure Blob Storage.
. "$(dirname "$0")/common.sh"

account=orthanc
key=$(printf %s "$secret_key" | base64 --wrap 0)
export AZURITE_ACCOUNTS="$account:$key"
start azurite node "$tools/azurite/node_modules/azurite/dist/src/blob/main.js" --location "$folder" --silent \
    --disableTelemetry --skipApiVersionCheck --blobHost 127.0.0.1 --blobPort "$port"
eventually curl --silent --noproxy '*' --output /dev/null "http://127.0.0.1:$port"
account_with() {
    echo "DefaultEndpointsProtocol=http;AccountName=$account;AccountKey=$1;BlobEndpoint=http://127.0.0.1:$port/$account;"
}
cat >"$folder/unfinished.json" <<END
{
    "Plugin": "azure-blob",
    "Port": $port,
    "Section": {
        "ContainerName": "$bucket", "CreateContainerIfNotExists": true, "ConnectionString": "$(account_with "$key")"
    },
    "Refused": {"ConnectionString": "$(account_with d3Jvbmcta2V5)"},
    "Refusal": "HTTP 403"
}
END
mv "$folder/unfinished.json" "$folder/server.json"
wait
