"""Assign users to leaves and buckets by MD5, which every warehouse has."""

from __future__ import annotations

from hashlib import md5
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError

#: Three hexadecimal digits have this many values.
MAX_LEAVES = 4096
DEFAULT_LEAVES = 64


def leaf_of(user_ids: npt.NDArray[Any], leaves: int = DEFAULT_LEAVES) -> IntArray:
    """Return the leaf (U,) of each user, 0 to leaves - 1; it depends on the user's id only.

    It is the first three hexadecimal digits of the MD5 of the id's text in UTF-8, modulo the number of leaves. A whole
    number has the text of its digits, so that 17 and `17` are in the same leaf. Half of a pair of UTF-16, which has no
    UTF-8, is written as an escape. The bucket of a user is the leaf modulo the number of buckets, which divides that
    of the leaves.

    Args:
        user_ids: Ids (U,) as in `History.user_ids`: integers or text.
        leaves: Number of leaves, a power of two up to `MAX_LEAVES`.

    Raises:
        ConfigError: If there cannot be this number of leaves.
    """
    check_division(leaves, 1)
    texts = map(str, np.asarray(user_ids).tolist())
    digests = b"".join(
        md5(text.encode("utf-8", "backslashreplace"), usedforsecurity=False).digest()[:2] for text in texts
    )
    return (np.frombuffer(digests, dtype=">u2").astype(np.int64) >> 4) % leaves


def check_division(leaves: int, buckets: int) -> None:
    """Check that there can be a number of leaves, and that a number of buckets divides it.

    Raises:
        ConfigError: If not.
    """
    if leaves < 1 or leaves > MAX_LEAVES or leaves & (leaves - 1):
        raise ConfigError(f"the number of leaves is {leaves}: give a power of two from 1 to {MAX_LEAVES}")
    if buckets < 1:
        raise ConfigError(f"the number of buckets is {buckets}: give at least 1")
    if leaves % buckets:
        raise ConfigError(
            f"{buckets} buckets do not divide {leaves} leaves: give a power of two up to {leaves} buckets, "
            f"or for more than {leaves} buckets more leaves, such as --leaves {MAX_LEAVES}"
        )
