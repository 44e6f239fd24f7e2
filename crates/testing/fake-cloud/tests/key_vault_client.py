"""Microsoft's own client of Azure Key Vault wraps and unwraps a key of 32 bytes.

Arguments: vault URL, name of a key, tenant, client id, client secret, file with the authority's certificate.
The proxy is in HTTPS_PROXY.
"""

import sys

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

vault, name, tenant, client, secret, authority = sys.argv[1:]
options = {"connection_verify": authority, "retry_total": 0}
algorithm = KeyWrapAlgorithm.rsa_oaep_256
plaintext = bytes(range(32))


def credential(secret):
    return ClientSecretCredential(tenant, client, secret, **options)


key = KeyClient(vault, credential(secret), **options).get_key(name)
assert key.id.startswith(f"{vault}/keys/{name}/"), key.id

# With the public part of the key, this client wraps by itself.
local = CryptographyClient(key, credential(secret), **options)
wrapped = local.wrap_key(algorithm, plaintext)
assert wrapped.key_id == key.id, wrapped.key_id
assert local.unwrap_key(algorithm, wrapped.encrypted_key).key == plaintext

# An identifier of a version that the client may not read: the vault wraps.
remote = CryptographyClient(key.id, credential(secret), **options)
remote._initialized = True
wrapped = remote.wrap_key(algorithm, plaintext)
assert wrapped.key_id == key.id, wrapped.key_id
assert remote.unwrap_key(algorithm, wrapped.encrypted_key).key == plaintext

try:
    remote.unwrap_key(algorithm, wrapped.encrypted_key[:-1])
    raise AssertionError("a damaged ciphertext was unwrapped")
except HttpResponseError as error:
    assert error.status_code == 400, error

try:
    KeyClient(vault, credential("wrong"), **options).get_key(name)
    raise AssertionError("a wrong secret was accepted")
except ClientAuthenticationError as error:
    assert "AADSTS7000215" in str(error), error
