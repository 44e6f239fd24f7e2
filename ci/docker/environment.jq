# Converts variables such as ORTHANC__AWS_S3_STORAGE__BUCKET_NAME to Orthanc's configuration.
#
# Two underscores separate sections, one underscore separates words: AwsS3Storage, BucketName. Values that are valid JSON
# are used as JSON (true, 8042, {"user": "password"}), all others as strings.

# Names that cannot be derived from their words.
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
