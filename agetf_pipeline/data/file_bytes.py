"""Reading a file from outside into memory: a regular file, and no more of it than is allowed."""

import errno
import os
import stat
from pathlib import Path


class TooManyBytesError(Exception):
    """The file is larger than it may be; `num_bytes` is what its size was said to be, at least."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(f"{num_bytes} bytes")
        self.num_bytes = num_bytes


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes.

    What the file is and how large is asked of the opened file, so that nothing put in its place
    meanwhile is read instead; a pipe does not make it wait, and a file that grows stays bounded.

    Args:
        path: The file.
        max_bytes: Most bytes that are taken.

    Raises:
        OSError: It cannot be read, or is no regular file.
        TooManyBytesError: It has more; at most one byte over the limit was read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", str(path))
        if status.st_size > max_bytes:
            raise TooManyBytesError(status.st_size)
        data = bytearray()
        # Some file systems say 0 until the end is reached, so the size is a hint and no more.
        wanted = status.st_size + 1
        while block := stream.read(min(wanted, max_bytes + 1 - len(data))):
            data += block
            if len(data) > max_bytes:
                raise TooManyBytesError(len(data))
            wanted = 1 << 20
        return bytes(data)
