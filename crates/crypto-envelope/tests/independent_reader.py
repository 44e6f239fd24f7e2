#!/usr/bin/env python3
"""Reads and writes the envelopes A1 and A2, written from docs/encryption-format.md alone.

    independent_reader.py decrypt KEY_ID:KEY_FILE UUID IN OUT
    independent_reader.py encrypt KEY_ID:KEY_FILE UUID FORMAT IN OUT

Requires the package `cryptography`. The program shares nothing with the Rust code: if they disagree, the document or one
of them is wrong. It can also read an archive for which no orthanc-envelope is available. It reads whole files into memory.
"""

import base64
import os
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding, aes_key_wrap_with_padding


class Refused(Exception):
    """The envelope must not be trusted."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def hkdf(ikm, salt, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(ikm)


def read_key(path):
    with open(path, "rb") as file:
        key = base64.b64decode(b"".join(file.read().split()), validate=True)
    require(len(key) == 32, "a master key has 32 bytes")
    return key


def ctr(master_key, data):
    cipher = Cipher(algorithms.AES(master_key), modes.CTR(bytes(16))).encryptor()
    return cipher.update(data) + cipher.finalize()


def a1_decrypt(master_key, envelope):
    require(len(envelope) >= 86, "shorter than an A1 envelope can be")
    header, ciphertext, tag = envelope[:70], envelope[70:-16], envelope[-16:]
    iv, data_key = ctr(master_key, header[6:38]), ctr(master_key, header[38:70])
    gcm = Cipher(algorithms.AES(data_key), modes.GCM(iv, tag)).decryptor()
    gcm.authenticate_additional_data(header)
    return gcm.update(ciphertext) + gcm.finalize()


def a1_encrypt(master_key, key_id, plaintext):
    iv, data_key = os.urandom(32), os.urandom(32)
    header = b"A1" + struct.pack("<I", key_id) + ctr(master_key, iv) + ctr(master_key, data_key)
    gcm = Cipher(algorithms.AES(data_key), modes.GCM(iv)).encryptor()
    gcm.authenticate_additional_data(header)
    ciphertext = gcm.update(plaintext) + gcm.finalize()
    return header + ciphertext + gcm.tag


def wrapping_key(master_key):
    return hkdf(master_key, None, b"orthanc-object-storage A2 wrap")


def content_key(file_key, header, uuid):
    require(len(uuid) == 36, "a UUID has 36 characters")
    return hkdf(file_key, header[10:42], b"orthanc-object-storage A2 content" + header + uuid.encode("ascii"))


def nonce(index, last):
    return index.to_bytes(11, "big") + bytes([last])


def a2_decrypt(master_key, uuid, envelope):
    require(len(envelope) >= 42, "shorter than an A2 header")
    algorithm, k, wrapped_len = struct.unpack_from("<BBH", envelope, 6)
    require(algorithm == 1, f"key wrap algorithm {algorithm}")
    require(wrapped_len == 40, "wrapped key length")
    require(12 <= k <= 24, "segment size")
    header_len, sealed_len = 42 + wrapped_len, 2**k + 16
    require(len(envelope) >= header_len + 16, "shorter than an A2 envelope can be")
    header, body = envelope[:header_len], envelope[header_len:]
    segments = [body[start : start + sealed_len] for start in range(0, len(body), sealed_len)]
    last = len(segments) - 1
    require(len(segments[last]) >= (17 if last else 16), "impossible length")
    file_key = aes_key_unwrap_with_padding(wrapping_key(master_key), header[42:])
    require(len(file_key) == 32, "file key length")
    gcm = AESGCM(content_key(file_key, header, uuid))
    return b"".join(gcm.decrypt(nonce(i, i == last), segment, None) for i, segment in enumerate(segments))


def a2_encrypt(master_key, key_id, uuid, plaintext):
    k, salt, file_key = 16, os.urandom(32), os.urandom(32)
    wrapped = aes_key_wrap_with_padding(wrapping_key(master_key), file_key)
    header = b"A2" + struct.pack("<IBBH", key_id, 1, k, len(wrapped)) + salt + wrapped
    pieces = [plaintext[start : start + 2**k] for start in range(0, len(plaintext), 2**k)] or [b""]
    gcm = AESGCM(content_key(file_key, header, uuid))
    last = len(pieces) - 1
    return header + b"".join(gcm.encrypt(nonce(i, i == last), piece, None) for i, piece in enumerate(pieces))


def decrypt(key_id, master_key, uuid, envelope):
    require(len(envelope) >= 6, "no envelope")
    require(struct.unpack_from("<I", envelope, 2)[0] == key_id, "unknown key id")
    if envelope[:2] == b"A1":
        return a1_decrypt(master_key, envelope)
    require(envelope[:2] == b"A2", "no envelope")
    return a2_decrypt(master_key, uuid, envelope)


def main(arguments):
    command, (key_id, _, key_file), uuid = arguments[0], arguments[1].partition(":"), arguments[2]
    key_id, key = int(key_id), read_key(key_file)
    with open(arguments[-2], "rb") as file:
        content = file.read()
    if command == "decrypt":
        try:
            result = decrypt(key_id, key, uuid, content)
        except Exception as error:  # the library's own exceptions have no text
            print(f"refused: {error or type(error).__name__}", file=sys.stderr)
            return 1
    elif arguments[3] == "A1":
        result = a1_encrypt(key, key_id, content)
    else:
        result = a2_encrypt(key, key_id, uuid, content)
    with open(arguments[-1], "wb") as file:
        file.write(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
