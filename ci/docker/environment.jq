# Orthanc's configuration out of variables such as ORTHANC__AWS_S3_STORAGE__BUCKET_NAME.
#
# Two underscores lead into a section, one begins a new word: AwsS3Storage, BucketName. A value that is JSON is taken as
# such (true, 8042, {"user": "password"}), any other is a text.

# Names that do not follow from their words.
def names: {
  POSTGRESQL: "PostgreSQL",
  HTTPS_CA_CERTIFICATES: "HttpsCACertificates"
};

def name: names[.] // (split("_") | map(.[0:1] + (.[1:] | ascii_downcase)) | join(""));

{
  StorageDirectory: "/var/lib/orthanc/db",
  IndexDirectory: "/var/lib/orthanc/db",
  Plugins: ["/usr/share/orthanc/plugins"],
  RemoteAccessAllowed: true,
  AuthenticationEnabled: true
}
+ reduce (env | to_entries[] | select(.key | startswith("ORTHANC__"))) as $variable ({};
    setpath($variable.key[9:] / "__" | map(name); $variable.value | (try fromjson catch $variable.value)))
