#!/bin/sh
# nginx with a certificate that it has signed itself, and with buffers.
. "$(dirname "$0")/nginx-common.sh"

self_signed server 127.0.0.1 -addext subjectAltName=IP:127.0.0.1
start_nginx server.pem on
