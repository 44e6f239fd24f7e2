# Converts variables such as ORTHANC__AWS_S3_STORAGE__BUCKET_NAME to Orthanc's configuration.
#
# Two underscores separate sections, one underscore separates words: AwsS3Storage, BucketName. Values that are valid JSON
# are used as JSON (true, 8042, {"user": "password"}), all others as strings. Of secrets, numbers are strings too, since
# a password may consist of digits.
#
# The input is the secrets: objects from file name to content, or null if the file cannot be read. A secret whose name is
# a variable is that variable. The variable ORTHANC__AWS_S3_STORAGE__SECRET_KEY_SECRET names the secret that is
# ORTHANC__AWS_S3_STORAGE__SECRET_KEY. The option clientSecret is no such name, but CLIENT_SECRET_SECRET is.

# Names that cannot be derived from their words.
def names: {
  CASE_SENSITIVE_PN: "CaseSensitivePN",
  POSTGRESQL: "PostgreSQL",
  HTTPS_CA_CERTIFICATES: "HttpsCACertificates",
  KEEP_FREE_MB: "KeepFreeMB",
  MAX_CACHE_MB: "MaxCacheMB",
  MAX_PENDING_MB: "MaxPendingMB",
  STORE_MD5_FOR_ATTACHMENTS: "StoreMD5ForAttachments"
};

def name: names[.] // (split("_") | map(.[0:1] + (.[1:] | ascii_downcase)) | join(""));

# The options of AzureKeyVault begin with a small letter: kid, clientId.
def path:
  . / "__"
  | map(name)
  | if .[-2] == "AzureKeyVault" then .[-1] |= (.[0:1] | ascii_downcase) + .[1:] else . end;

def names_secret: endswith("_SECRET") and (endswith("__CLIENT_SECRET") | not);

def value:
  . as $variable
  | try ($variable.value | fromjson) catch $variable.value
  | if $variable.secret == null or (type | IN("object", "array", "boolean")) then . else $variable.value end;

def stop: "entrypoint: \(.)\n" | halt_error(1);

def variables: to_entries[] | select(.key | startswith("ORTHANC__"));

(add // {}) as $secrets
| [
    ($secrets | variables | .secret = .key),
    (env | variables | if .key | names_secret then {key: .key[:-7], secret: .value} else . end)
  ]
| map(
    .secret as $name
    | if $name == null then .
      elif $secrets[$name] then .value = $secrets[$name]
      elif $secrets | has($name) then "the user of the container cannot read the secret \($name)" | stop
      # The name is not printed, since it can be a secret by mistake.
      else "the secret that \(.key)_SECRET names is not in /run/secrets" | stop
      end)
| (group_by(.key)[] | select(length > 1) | "\(.[0].key) is set twice, by a variable and by a secret" | stop),
  reduce .[] as $variable (
    {
      StorageDirectory: "/var/lib/orthanc/db",
      IndexDirectory: "/var/lib/orthanc/db",
      Plugins: ["/usr/share/orthanc/plugins"],
      RemoteAccessAllowed: true,
      AuthenticationEnabled: true
    };
    setpath($variable.key[9:] | path; $variable | value))
