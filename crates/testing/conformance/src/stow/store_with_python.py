"""Stores files: all of them, one that fails among them, and one to another study."""

import sys

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

url, refused, *paths = sys.argv[1:]
files = [pydicom.dcmread(path) for path in paths]
uids = {file.SOPInstanceUID for file in files}
client = DICOMwebClient(url)

stored = client.store_instances(files)
assert {item.ReferencedSOPInstanceUID for item in stored.ReferencedSOPSequence} == uids, stored
assert "FailedSOPSequence" not in stored, stored

# The client buffers the body and sends it with Transfer-Encoding: chunked from this size on.
chunked = DICOMwebClient(url, chunk_size=100_000)
stored = chunked.store_instances(files, study_instance_uid=files[0].StudyInstanceUID)
assert len(stored.ReferencedSOPSequence) == len(files), stored

failing = pydicom.dcmread(refused)
# Status 202. Newer versions of Orthanc make the client overlook the body.
stored = client.store_instances(files + [failing])
if stored:
    assert stored.FailedSOPSequence[0].ReferencedSOPInstanceUID == failing.SOPInstanceUID, stored
    assert len(stored.ReferencedSOPSequence) == len(files), stored
print("202:", "a data set" if stored else "an empty data set")

# Status 409.
try:
    client.store_instances([failing])
except requests.HTTPError as error:
    assert error.response.status_code == 409, error
else:
    raise AssertionError("a failed instance was reported as stored")
