# nginx with TLS in front of a server: limits the size of requests, and closes idle connections after a second.
. "$(dirname "$0")/common.sh"

# Starts nginx with further directives, and with the certificate in FOLDER: start_nginx CERTIFICATES BUFFERING
start_nginx() {
    cat >"$folder/nginx.conf" <<END
daemon off;
# A worker would survive if its master were killed.
master_process off;
pid $folder/nginx.pid;
error_log $folder/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $folder/temporary-body;
    proxy_temp_path $folder/temporary-proxy;
    fastcgi_temp_path $folder/temporary-fastcgi;
    uwsgi_temp_path $folder/temporary-uwsgi;
    scgi_temp_path $folder/temporary-scgi;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $folder/server.pem;
        ssl_certificate_key $folder/server.key;
        client_max_body_size 20m;
        keepalive_timeout 1;
        proxy_request_buffering $2;
        proxy_buffering $2;
        location / {
            proxy_pass http://127.0.0.1:$upstream;
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
        }
    }
}
END
    start nginx "$(command -v nginx || echo /usr/sbin/nginx)" -p "$folder" -c "$folder/nginx.conf"
    eventually curl --silent --noproxy '*' --cacert "$folder/$1" --output /dev/null "https://127.0.0.1:$port"
    ready_s3 https "$checks_signatures, \"Orthanc\": {\"HttpsCACertificates\": \"$folder/$1\"}"
}

# Makes a key and a certificate that it signs itself: self_signed NAME SUBJECT EXTENSION…
self_signed() {
    name=$1
    subject=$2
    shift 2
    openssl req -x509 -newkey rsa:2048 -noenc -days 30 -keyout "$folder/$name.key" -out "$folder/$name.pem" \
        -subj "/CN=$subject" "$@" 2>"$folder/openssl.log"
}
