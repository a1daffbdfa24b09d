"""What is hidden in messages, and what is left as it is."""

import logging
import os
import subprocess
import sys

import pytest
from tiny_shards import REPOSITORY

from agetf_pipeline.core.secrets import (
    holds_credentials,
    is_secret_name,
    keep_out_of_logs,
    redact,
    redact_address,
    redacted,
)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:s3cr3t@host:5000/api",
        "postgresql+psycopg2://agetf:s3cr3t@db:5432/mlflow",
        "https://s3cr3t@github.example/x",
        "https://b.s3.example/k?X-Amz-Signature=s3cr3t&X-Amz-Date=1",
        "https://a.blob.example/c?sv=1&sig=s3cr3t%3D",
        "https://x.example/y?a=1&access_token=s3cr3t",
        "Authorization: Bearer s3cr3ts3cr3t",
        "Authorization: Basic s3cr3ts3cr3t=",
        "could not connect: host=db password=s3cr3t user=u",
        "{'secret_access_key': 's3cr3t'}",
        '{"token": "s3cr3t"}',
        "MLFLOW_TRACKING_PASSWORD=s3cr3t",
        "client_secret: s3cr3t",
        "postgresql+psycopg2://bob:it's3cr3t@host/db",
        "postgresql://bob:p@ss3cr3t@host/db",
        "postgresql://bob:a/s3cr3t@host/db",
        "//bob:p@s3cr3t@host/db",
        '{\\"password\\": \\"s3cr3t\\"}',
        "{'password': b's3cr3t'}",
        "{b'password': b's3cr3t'}",
        "('password', 's3cr3t')",
        "['--password', 's3cr3t']",
        "psql --db-password s3cr3t --host db",
        "Authorization: Token s3cr3t",
        "Authorization: ApiKey s3cr3t",
        "dbPassword=s3cr3t",
        "AWSSecretKey=s3cr3t",
        "password=ab,s3cr3t",
        "password='it's3cr3t'",
        "password=None-s3cr3t",
        "basic QWxhZGRpbjpzM2NyM3Q6s3cr3t==",
    ],
)
def test_credentials_are_hidden(text):
    assert "s3cr3t" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Expected 4 tokens; found 5: max_new_tokens: 4",
        "sqlite:////data/mlflow.db",
        "s3://bucket/faces and abfs://container@account.example/x",
        "caption.max_new_tokens=64",
        "http://127.0.0.1:5000/#/experiments",
        "stage train: done in 3 s {'images': 4}",
        "Drop the key of image_id 0123 in data/tables/images/caf/a.parquet",
        "a person@example.org wrote",
        "YAML: found unexpected token: '*'",
        "JSON: Expected token: found }",
        "eos_token: '</s>'",
        "max_new_token=128",
        "['token', 'image']",
        "a basic authentication scheme",
        "bearer bondsmen and basic responsibilities",
        "models at http://localhost:5000/#/models/agetf@champion",
        "http://127.0.0.1:5000/static/face@2x.png",
        "postgresql://agetf@db/mlflow",
        "file:///a:b@c",
        '{"a":"http://h:80/","b":"x@y"}',
    ],
)
def test_other_text_stays(text):
    assert redact(text) == text


def test_what_the_environment_keeps_secret_is_hidden_wherever_it_occurs(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef123")
    monkeypatch.setenv("AGETF_STORAGE_OPTIONS", '{"s3": {"key": "AKIA1234", "secret": "shhhhhh"}}')
    monkeypatch.setenv("SHORT_PASSWORD", "abc")
    text = "403 for wJalr/XUtn+FEMI as wJalr%2FXUtn%2BFEMI, hf_abcdef123, AKIA1234, shhhhhh, abc"
    assert redact(text) == "403 for *** as ***, ***, ***, ***, abc"


def test_what_may_be_part_of_another_word_is_hidden_as_a_word_alone(monkeypatch):
    monkeypatch.setenv("POSTGRES_PASSWORD", "dagster")
    monkeypatch.setenv("TOKEN", "123456")
    text = "sha256 ab12345677 of /srv/dagster/x, postgres.dagster-home; dagster_home"
    assert redact(text) == text
    assert redact("refused 'dagster', as 123456.") == "refused '***', as ***."


@pytest.mark.parametrize(
    "part",
    ["a.", "1", "f0", "a-", "x://a:", "//", "password ", "password='", "passwordPassword", "--a-",
     "basic a", "postgresql://a:", "?sig=", "token: ", '\\"', "a,b=", "access_", "@"],
)  # fmt: skip
def test_a_long_text_takes_no_longer_than_its_length(part):
    """A million characters that once took hours: the process is ended after 20 s."""
    script = "import sys; from agetf_pipeline.core.secrets import redact, holds_credentials\n"
    script += "text = sys.argv[1] * (1_000_000 // len(sys.argv[1]))\n"
    script += "redact(text); holds_credentials(text); print('done')"
    done = subprocess.run(
        [sys.executable, "-c", script, part], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


def test_bytes_sets_and_counts():
    value = {"a": b"password=s3cr3t", "b": {"token=s3cr3t-0123"}, "max_new_token": 128}
    assert redacted(value) == {"a": b"password=***", "b": ["token=***"], "max_new_token": 128}


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://bob:it'sXYZ@host/db",
        'mysql://u:aXYZ"b@h/d',
        "postgresql://bob:p XYZ@h/d",
        "postgresql://bob:p/XYZ@h/d",
        "//bob:p@XYZ@host/db",
        "http://XYZ@host/",
    ],
)
def test_an_address_alone_is_looked_at_whole(uri):
    assert holds_credentials(uri)
    assert "XYZ" not in redact_address(uri)


@pytest.mark.parametrize(
    "uri",
    ["abfs://container@account.example/x", "s3://bucket/a:b@c", "sqlite:////data/a:b@c.db",
     "postgresql://agetf@db/mlflow", "file:///a:b@c"],
)  # fmt: skip
def test_addresses_without_a_password_may_be_set(uri):
    assert not holds_credentials(uri)
    assert redact_address(uri) == uri


def test_nested_values_are_hidden_by_their_names():
    value = {"a": {"password": "x", "uri": "http://u:p@h/"}, "b": ["token=s3cr3t", 3, None]}
    assert redacted(value) == {
        "a": {"password": "***", "uri": "http://***@h/"},
        "b": ["token=***", 3, None],
    }


def test_names_and_addresses():
    assert is_secret_name("MLFLOW_TRACKING_TOKEN")
    assert is_secret_name("PGPASSWORD")
    assert is_secret_name("dbPassword")
    assert not is_secret_name("max_new_tokens")
    assert holds_credentials("https://u:p@host/")
    assert not holds_credentials("https://host:8080/")


def test_no_log_record_tells_them(caplog):
    keep_out_of_logs()
    keep_out_of_logs()  # once is enough, and twice no harm
    logger = logging.getLogger("somebody.elses")
    logger.warning("connecting to %s", "http://u:s3cr3t@h/")
    try:
        raise ValueError("https://h/?sig=s3cr3t")
    except ValueError:
        logger.exception("it failed")
    assert "s3cr3t" not in caplog.text
    assert "http://***@h/" in caplog.text
    assert "ValueError" in caplog.text
