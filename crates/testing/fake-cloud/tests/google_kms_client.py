"""Google's own client of Cloud KMS wraps and unwraps a key of 32 bytes.

Arguments: port of the service, name of a key with two versions, file with a service account, and the key of 32 times the
byte 7, encrypted with the first version, in hexadecimal.
"""

import sys

from google.api_core.exceptions import BadRequest
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport
from google.oauth2 import service_account
import google_crc32c

port, key, account, older = sys.argv[1:]
scopes = ["https://www.googleapis.com/auth/cloud-platform"]
credentials = service_account.Credentials.from_service_account_file(account, scopes=scopes)
transport = KeyManagementServiceRestTransport(
    host=f"127.0.0.1:{port}", credentials=credentials.with_always_use_jwt_access(True), url_scheme="http"
)
client = kms_v1.KeyManagementServiceClient(transport=transport)
data = b"orthanc-object-storage A2"


def crc(value):
    return int(google_crc32c.value(value))


def checked(**values):
    """Returns the values and their checksums."""
    return {**values, **{f"{name}_crc32c": crc(value) for name, value in values.items()}}


def encrypt(**changes):
    request = checked(plaintext=bytes(range(32)), additional_authenticated_data=data)
    return client.encrypt(request={"name": key, **request, **changes}, retry=None)


def decrypt(ciphertext, **changes):
    request = checked(ciphertext=ciphertext, additional_authenticated_data=data)
    return client.decrypt(request={"name": key, **request, **changes}, retry=None)


def refused(call, *arguments, **changes):
    try:
        call(*arguments, **changes)
    except BadRequest:
        return
    raise AssertionError(f"accepted: {changes}")


encrypted = encrypt()
assert encrypted.name == f"{key}/cryptoKeyVersions/2", encrypted.name
assert encrypted.verified_plaintext_crc32c and encrypted.verified_additional_authenticated_data_crc32c
assert encrypted.ciphertext_crc32c == crc(encrypted.ciphertext)

decrypted = decrypt(encrypted.ciphertext)
assert decrypted.plaintext == bytes(range(32)) and decrypted.used_primary
assert decrypted.plaintext_crc32c == crc(decrypted.plaintext)
decrypted = decrypt(bytes.fromhex(older))
assert decrypted.plaintext == bytes([7] * 32) and not decrypted.used_primary

refused(encrypt, plaintext_crc32c=1)
refused(decrypt, bytes(60))
refused(decrypt, encrypted.ciphertext, **checked(additional_authenticated_data=b"other"))
