"""A history in buckets of users on disk, so that no computation needs all users in memory.

A user belongs to a leaf by the hash of the id alone (`leaf_of`), and a bucket is a union of leaves. The folder has a
manifest, `buckets.json`, and in each bucket a table of users and parts of decisions and events: one for each day of a
log by day, else one named `all`.

FOLDER/buckets.json                                     what all buckets share, and each file with its checksum
FOLDER/bucket-00000/users.<md5>.parquet                 user_id, observed_from, observed_until, attributes
FOLDER/bucket-00000/decisions/2024-01-15.<md5>.parquet  decisions of a day, in native columns
FOLDER/bucket-00000/events/2024-01-15.<md5>.parquet     events of that day

Names of files have the beginning of their checksum. So a writer never changes a file that the manifest names, and
replaces the manifest at the end: readers see the folder as it was before, or as it is afterwards.
"""

from crosschannel.histories.buckets.leaves import DEFAULT_LEAVES, check_division, leaf_of
from crosschannel.histories.buckets.opening import Buckets, is_bucket, is_bucketed, open_buckets, read_bucket
from crosschannel.histories.buckets.writing import write_buckets

__all__ = [
    "DEFAULT_LEAVES",
    "Buckets",
    "check_division",
    "is_bucket",
    "is_bucketed",
    "leaf_of",
    "open_buckets",
    "read_bucket",
    "write_buckets",
]
