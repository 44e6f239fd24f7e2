#!/bin/sh
# nginx with a certificate of a private authority, and without buffers.
. "$(dirname "$0")/nginx-common.sh"

self_signed authority "Test authority"
openssl req -newkey rsa:2048 -noenc -keyout "$folder/server.key" -out "$folder/server.csr" \
    -subj "/CN=127.0.0.1" 2>"$folder/openssl.log"
printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$folder/extensions"
openssl x509 -req -in "$folder/server.csr" -CA "$folder/authority.pem" -CAkey "$folder/authority.key" \
    -set_serial 1 -days 30 -extfile "$folder/extensions" -out "$folder/server.pem" 2>"$folder/openssl.log"
start_nginx authority.pem off
