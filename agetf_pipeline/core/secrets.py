"""Passwords, keys and signed addresses, kept out of log lines, messages and what is stored.

Credentials belong in environment variables. Libraries put them into their errors all the same: the
address that was refused, with what signed it. What leaves the process passes through `redact`.
"""

import json
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_MIN_CHARACTERS = 6
"""Shorter values occur in any text by chance."""
_SECRET_WORDS = (
    r"password|passwd|passphrase|pgpassword|secret|secret[_-]?key|secret[_-]?access[_-]?key|"
    r"access[_-]?token|auth[_-]?token|session[_-]?token|security[_-]?token|api[_-]?key|apikey|"
    r"access[_-]?key|access[_-]?key[_-]?id|account[_-]?key|accountkey|sas[_-]?token|private[_-]?key|"
    r"client[_-]?secret|connection[_-]?string|token|pwd"
)
_SECRET_NAME = re.compile(rf"(^|[_.-])({_SECRET_WORDS})$", re.IGNORECASE)
_SIGNING = (
    r"sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid|googleaccessid|expires|key|code"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host, and a token alone before the @ of a web address.
    (re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s@'\"]+@"), f"{HIDDEN}@"),
    (re.compile(r"(https?://)[^\s/@'\"]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(rf"([?&;](?:{_SIGNING}|{_SECRET_WORDS})=)[^\s&;'\"<>)]+", re.IGNORECASE),
     rf"\1{HIDDEN}"),
    (re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9+/_=.~-]{8,}", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(
        rf"(?<![A-Za-z])((?:[A-Za-z0-9]+[_.-])*(?:{_SECRET_WORDS})['\"]?\s*[=:]\s*)"
        r"(?:'[^'\n]+'|\"[^\"\n]+\"|(?!\*\*\*|None\b|null\b|true\b|false\b)[^\s'\",;&)}\]]{3,})",
        re.IGNORECASE,
    ), rf"\1{HIDDEN}"),
)  # fmt: skip
_factory: Any = None


def redact(text: str) -> str:
    """Return `text` with what looks like a credential, or is one of this process, replaced.

    Replaced are user names and passwords in addresses, the signing parts of their queries, values
    beside words such as `password`, and every value that an environment variable with such a name
    has (`AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_TOKEN`, `PGPASSWORD`, `HF_TOKEN`).
    """
    for value in _environment_secrets():
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted(value: Any) -> Any:
    """Return JSON values, every text in them redacted, and what bears a secret's name hidden."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if item and is_secret_name(str(name)) else redacted(item)
            for name, item in value.items()
        }
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def is_secret_name(name: str) -> bool:
    """Whether what bears this name is a credential: `MLFLOW_TRACKING_PASSWORD`, `secret`."""
    return _SECRET_NAME.search(name) is not None


def holds_credentials(uri: str) -> bool:
    """Whether an address has a password, a token or a signature in it."""
    return any(pattern.search(uri) is not None for pattern, _ in _PATTERNS[:3])


def tells_secrets(error: BaseException) -> bool:
    """Whether an error, what caused it, or the lines of its traceback hold a credential."""
    trace = "".join(traceback.format_exception(error))
    return redact(trace) != trace


def keep_out_of_logs() -> None:
    """Redact every log record of this process, whoever makes it and wherever it goes."""
    global _factory
    if _factory is not None and logging.getLogRecordFactory() is _factory:
        return
    make = logging.getLogRecordFactory()

    def factory(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        _redact_record(record)
        return record

    _factory = factory
    logging.setLogRecordFactory(factory)


def _redact_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # arguments that do not fit: logging says so where it writes
        return
    clean = redact(message)
    if clean != message:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[1] is not None:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        clean = redact(trace)
        if clean != trace:  # formatters take the text where there is one
            record.exc_text = clean


def _environment_secrets() -> Iterator[str]:
    """Yield the values to hide, the longest first, and as an address would spell them."""
    values: set[str] = set()
    for name, value in os.environ.items():
        if value.startswith("{") and name.endswith("OPTIONS"):
            values.update(_secrets_of_json(value))
        elif is_secret_name(name):
            values.add(value)
    spelled = {form for value in values for form in (value, quote(value, safe=""), unquote(value))}
    yield from sorted((each for each in spelled if _is_telling(each)), key=len, reverse=True)


def _is_telling(value: str) -> bool:
    # A path to a file of credentials is no secret; a word such as `default` hides half the text.
    return len(value) >= _MIN_CHARACTERS and not value.startswith("/")


def _secrets_of_json(text: str) -> Iterable[str]:
    try:
        pending = [json.loads(text)]
    except ValueError:
        return
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            for name, item in value.items():
                if isinstance(item, str) and (is_secret_name(name) or name in {"key", "secret"}):
                    yield item
                pending.append(item)
        elif isinstance(value, list):
            pending.extend(value)
