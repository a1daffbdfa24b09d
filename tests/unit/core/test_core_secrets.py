"""What is hidden in messages, and what is left as it is."""

import logging

import pytest

from agetf_pipeline.core.secrets import (
    holds_credentials,
    is_secret_name,
    keep_out_of_logs,
    redact,
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


def test_nested_values_are_hidden_by_their_names():
    value = {"a": {"password": "x", "uri": "http://u:p@h/"}, "b": ["token=s3cr3t", 3, None]}
    assert redacted(value) == {
        "a": {"password": "***", "uri": "http://***@h/"},
        "b": ["token=***", 3, None],
    }


def test_names_and_addresses():
    assert is_secret_name("MLFLOW_TRACKING_TOKEN")
    assert is_secret_name("PGPASSWORD")
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
