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
_TELLING_CHARACTERS = 10
"""Values of so many letters and others occur nowhere by chance, not even within a word."""
_WORDS = (
    r"password|passwd|passphrase|pgpassword|secret[_-]?access[_-]?key|secret[_-]?key|secret|"
    r"access[_-]?token|auth[_-]?token|session[_-]?token|security[_-]?token|api[_-]?key|"
    r"access[_-]?key[_-]?id|access[_-]?key|account[_-]?key|sas[_-]?token|private[_-]?key|"
    r"client[_-]?secret|connection[_-]?string|token|pwd"
)
# A name begins where no letter stands before it, or with the hump of a dbPassword.
_BEGIN = r"(?:(?<![A-Za-z])|(?-i:(?=[A-Z][a-z])))"
_SECRET_NAME = re.compile(rf"{_BEGIN}(?:{_WORDS})$", re.IGNORECASE)
_SIGNING = (
    r"sig|signature|x-amz-[a-z-]{1,40}|x-goog-[a-z-]{1,40}|awsaccesskeyid|googleaccessid|expires|"
    r"key|code"
)
_DATABASES = r"postgres|postgresql|mysql|mariadb|mssql|oracle|redis|rediss|amqp|mongodb"

# Every pattern reads on from where it began over a bounded number of characters, or over what it
# then replaces: whatever the text, the time grows as its length does.
_USER_INFO = re.compile(r"(https?:)?(?<!/)//((?:[^\s/?#'\"<>]|['\"](?=[A-Za-z0-9]))+)@", re.I)
_DATABASE = re.compile(
    rf"((?:{_DATABASES})(?:\+[a-z0-9]{{1,32}})?://)[^\s:/@'\"]{{0,64}}:[^\s@'\"]{{1,256}}@", re.I
)
_QUERY = re.compile(rf"([?&;](?:{_SIGNING}|{_WORDS})=)[^\s&;'\"<>)]+", re.I)
_AUTHORIZATION = re.compile(
    r"(authorization\\{0,3}['\"]?[ \t]{0,8}[=:][ \t]{0,8}b?\\{0,3}['\"]?)"
    r"(?:(?:basic|bearer|token|digest|negotiate|apikey|aws4-hmac-sha256)[ \t]{1,8}[^\s'\"\\]+"
    r"|[^\s'\"\\]{6,})",
    re.I,
)
_BEARER = re.compile(
    r"\b((?:bearer|basic)\s{1,8})(?=[A-Za-z+/_.~-]{0,256}[0-9=])[A-Za-z0-9+/_=.~-]{16,}", re.I
)
_OPTION = re.compile(
    rf"(--(?:[A-Za-z0-9]{{1,32}}[_-]){{0,4}}(?:{_WORDS})(?:[ \t]{{1,8}}|=)['\"]?)(?!-)[^\s'\"]+",
    re.I,
)
_NAMED = re.compile(
    rf"(?P<head>{_BEGIN}(?P<name>{_WORDS})(?P<close>\\{{0,3}}['\"])?"
    r"(?P<mark>\s{0,8}(?:=>|->|[=:])\s{0,8}|(?<=['\"]),[ ]{0,4}(?=b?\\{0,3}['\"])))"
    r"(?:b?(?P<quote>\\{0,3}['\"])"
    r"(?P<quoted>(?:(?!(?P=quote)(?![A-Za-z0-9]))(?:\\.|[^\\\n]))+)(?P=quote)?"
    r"|(?P<bare>(?:[^\s'\"<>,;&)}\]\\]|[,;&)}\]](?![A-Za-z0-9_]{0,40}[=:])(?=[A-Za-z0-9])"
    r"|['\"](?=[A-Za-z0-9]))+))",
    re.I,
)
_STEMS = ("pass", "pwd", "secret", "token", "key", "connection")
_NO_VALUES = frozenset({"none", "null", "true", "false", HIDDEN})
_MIN_BARE = 3
_MIN_TOKEN = 12
_MAX_DIGITS = 6
_factory: Any = None


def redact(text: str) -> str:
    """Return `text` with what looks like a credential, or is one of this process, replaced.

    Replaced are user names and passwords in addresses, the signing parts of their queries, values
    beside words such as `password`, and every value that an environment variable with such a name
    has (`AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_TOKEN`, `PGPASSWORD`, `HF_TOKEN`).
    """
    for value in _environment_secrets():
        if value in text:
            text = _spelled_out(value).sub(HIDDEN, text)
    if "//" in text:
        text = _USER_INFO.sub(_hide_user, text)
        text = _DATABASE.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    lowered = text.lower()
    if "authorization" in lowered:
        text = _AUTHORIZATION.sub(rf"\1{HIDDEN}", text)
    if "bearer" in lowered or "basic" in lowered:
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
    if any(stem in lowered for stem in _STEMS):
        if "--" in text:
            text = _OPTION.sub(rf"\1{HIDDEN}", text)
        text = _NAMED.sub(_hide_value, text)
    return text


def redacted(value: Any) -> Any:
    """Return JSON values, every text in them redacted, and what bears a secret's name hidden.

    Bytes are redacted as the text they spell; tuples and sets become lists.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if item and _is_secret(str(name), item) else redacted(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item) for item in value]
    return value


def _is_secret(name: str, item: Any) -> bool:
    # `max_new_token: 128` counts tokens.
    counts = name.lower().endswith("token") and isinstance(item, int | float)
    return is_secret_name(name) and not counts


def _hide_user(found: re.Match[str]) -> str:
    """Replace `user:password`, and a token alone before the @ of a web address."""
    web, user = found.groups()
    return f"{web or ''}//{HIDDEN}@" if web or ":" in user else found.group()


def _hide_value(found: re.Match[str]) -> str:
    """Replace what stands beside a secret's name, unless it is none by its looks."""
    quoted, bare = found["quoted"], found["bare"]
    value = bare if quoted is None else quoted
    if value.lower() in _NO_VALUES or (bare is not None and len(bare) < _MIN_BARE):
        return found.group()
    if found["name"].lower() == "token" and _is_of_a_grammar(found, value):
        return found.group()
    return f"{found['head']}{HIDDEN}"


def _is_of_a_grammar(found: re.Match[str], value: str) -> bool:
    """Whether `token` is one of a text: `max_new_token=128`, `unexpected token: '*'`."""
    if (value.isdigit() and len(value) <= _MAX_DIGITS) or "," in found["mark"]:
        return True
    if found["close"] is not None and found["quoted"] is not None:
        return False  # a key and its value, as JSON has them
    in_prose = found["mark"].endswith((" ", "\n"))
    plain = len(value) < _MIN_TOKEN or not any(each.isdigit() for each in value)
    return in_prose and plain


def is_secret_name(name: str) -> bool:
    """Whether what bears this name is a credential: `MLFLOW_TRACKING_PASSWORD`, `secret`."""
    return _SECRET_NAME.search(name) is not None


def holds_credentials(uri: str) -> bool:
    """Whether an address has a password, a token or a signature in it.

    Asked of an address alone, of which everything counts: passwords may have blanks and quotes.
    """
    return _user_end(uri) is not None or _QUERY.search(uri) is not None


def redact_address(uri: str) -> str:
    """Return an address alone, as a setting has it, without what it has of credentials."""
    end = _user_end(uri)
    if end is not None:
        scheme, mark, _ = uri.partition("//")
        uri = f"{scheme}{mark}{HIDDEN}@{uri[end:]}"
    return redact(uri)


def _user_end(uri: str) -> int | None:
    """Return where user name and password of an address end, None where it has none."""
    scheme, mark, rest = uri.partition("//")
    if not mark:
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    web = scheme.lower() in ("http:", "https:")
    if at and (web or ":" in user):
        return uri.rindex("@", 0, len(scheme) + 2 + len(authority)) + 1
    # What SQLAlchemy takes for a password may have a slash in it.
    slash = "/?#" if web else ""
    if re.match(rf"[^:/]*:[^@{slash}]*@", rest):
        return uri.rindex("@") + 1
    return None


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


def _spelled_out(value: str) -> re.Pattern[str]:
    """Return what finds a value: anywhere, or as a word where it may be part of other words.

    A password `dagster` is no part of a path, nor 123456 of a checksum.
    """
    mixed = not value.isalpha() and not value.isdigit()
    if mixed and len(value) >= _TELLING_CHARACTERS:
        return re.compile(re.escape(value))
    return re.compile(
        rf"(?<![A-Za-z0-9_./\\-]){re.escape(value)}(?![A-Za-z0-9_/\\-]|\.[A-Za-z0-9])"
    )


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
