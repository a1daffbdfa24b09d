"""What may leave a workspace: persons by keyed hash, and of sentences those known to be harmless.

A failure's message holds the path of a file, and in somebody's own collection a path is a name. So
no such message is released: the few that are known become one of our sentences, all others too.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from pathlib import Path

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace

UNREADABLE, NOT_ENHANCED = "the image could not be read", "the image could not be enhanced"
NO_PART = {
    "failed": "it did not read the image",
    "missing": "it was not asked",
    "masked": "it has no weight in the mixture",
}
"""By an expert's status, why it has no part in a label."""
_OTHERWISE = "it has no part in the label"
KEY_BYTES = 32
_HASH_DIGITS = 16
_UNREADABLE = "Expected a readable image at "
"""How the message of `data.images.read_rgb` begins."""
_TOO_FEW = re.compile(r"\d+ experts answered; \d+ are needed")


def key_path(workspace: Workspace) -> Path:
    """Return the file of the key of the persons' hashes."""
    return workspace.state / "release" / "identities.key"


def load_key(workspace: Workspace) -> bytes:
    """Return the key of the persons' hashes, 32 random bytes, made where there is none.

    Whoever has it can try names against a release. It stays in the workspace, readable by its owner
    alone, and is never released. Without it the same persons get other hashes.

    Raises:
        DataError: The file holds no key.
    """
    path = key_path(workspace)
    with exclusive_lock(path.with_name(".identities.lock"), "the key of the persons' hashes"):
        if not path.exists():
            _write_private(path, secrets.token_bytes(KEY_BYTES))
        key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise DataError(
            f"Expected a key of {KEY_BYTES} bytes in {path}; found {len(key)}. Restore it, or "
            "delete it: the persons of a release then get other hashes than before."
        )
    return key


def anonymous(identity: str, key: bytes) -> str:
    """Return a person's hash: HMAC-SHA256 (RFC 2104) of the identity, its first 16 digits."""
    return hmac.new(key, identity.encode(), hashlib.sha256).hexdigest()[:_HASH_DIGITS]


def reason_of_failure(reason: str | None) -> str | None:
    """Return why an image was not enhanced, without the file that it says it of."""
    if reason is None:
        return None
    return UNREADABLE if reason.startswith(_UNREADABLE) else NOT_ENHANCED


def reason_of_label(reason: str | None, decision: str) -> str | None:
    """Return why a label was decided so; where experts failed, without what they said.

    Args:
        reason: As in table `labels`: of ages, groups and reliabilities, or, for `unlabelled`, every
            expert's message.
        decision: Likewise.
    """
    if reason is None or decision != "unlabelled":
        return reason
    known = _TOO_FEW.match(reason)
    return known.group() if known else "too few experts answered"


def experts_without_messages(experts: str) -> str:
    """Return the JSON of the experts' parts, their messages replaced by what their status says."""
    if not experts:
        return experts
    parts = json.loads(experts)
    for part in parts.values():
        if part.get("reason") is not None:
            part["reason"] = NO_PART.get(part.get("status"), _OTHERWISE)
    return json.dumps(parts, sort_keys=True, allow_nan=False)


def names_a_path(text: str) -> bool:
    """Whether a sentence may name a file: nothing with a slash of either kind leaves."""
    return "/" in text or "\\" in text


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read; there whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
