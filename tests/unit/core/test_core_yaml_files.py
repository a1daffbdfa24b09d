"""YAML that blows up, nests for ever, or wants to build objects."""

import pytest

from agetf_pipeline.core.yaml_files import MAX_BYTES, parse_yaml, read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
DOUBLING = "\n".join(["b0: &b0 {}"] + [f"b{n}: &b{n} [*b{n - 1}, *b{n - 1}]" for n in range(1, 40)])


def test_plain_data_comes_through():
    assert parse_yaml("a: {b: [1, 2.5, x, null, true]}") == {"a": {"b": [1, 2.5, "x", None, True]}}
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}") == {"x": {"a": 1}, "y": {"a": 1, "b": 2}}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LAUGHS, "aliases that stand for more than"),
        (DOUBLING, "aliases that stand for more than"),
        ("a: &a [*a]", "within what it stands for"),
        ("[" * 5000, "levels"),
        ("a:\n" + "".join(f"{' ' * n}b:\n" for n in range(1, 300)), "levels"),
        ("!!python/object/apply:os.system ['touch /tmp/never']", "could not determine"),
        ("a: \0", "special characters"),
        ("a: [1", "expected"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
)
def test_what_is_more_than_it_looks_like_is_refused(text, found):
    with pytest.raises(ValueError, match=found):
        parse_yaml(text)


def test_a_file_is_read_only_up_to_a_size(tmp_path):
    large = tmp_path / "large.yaml"
    with large.open("wb") as stream:
        stream.truncate(100 * MAX_BYTES)
    with pytest.raises(ValueError, match=f"more than {MAX_BYTES} bytes"):
        read_yaml(large)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError):
        read_yaml(tmp_path / "binary.yaml")
