from __future__ import annotations

import struct

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _values


def registers_of(format_: str, value: float) -> list[int]:
    packed = struct.pack(format_, value)
    return list(struct.unpack(f">{len(packed) // 2}H", packed))


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("uint16", 65535),
        ("int16", -32768),
        ("uint32", 4294967295),
        ("int32", -2),
        ("float32", 230.5),
        ("uint64", 2**64 - 1),
        ("int64", -(2**63)),
        ("float64", 1e300),
    ],
)
@pytest.mark.parametrize("word_order", ["big", "little"])
def test_every_type_in_both_word_orders(type_name: str, value: float, word_order: str) -> None:
    registers = registers_of(_values.TYPES[type_name], value)
    if word_order == "little":
        registers.reverse()
    assert _values.width(type_name) == len(registers)
    assert _values.decode(registers, type_name, word_order) == value


def test_not_a_number_is_no_value() -> None:
    assert _values.decode([0x7FC0, 0], "float32") is None
    assert _values.decode([0x7F80, 0], "float32") is None


def test_too_few_registers() -> None:
    with pytest.raises(ValueError, match="float32 takes 2 registers, found 1"):
        _values.decode([1], "float32")


def test_scale() -> None:
    assert _values.decode([2305], "uint16", scale=0.1) == pytest.approx(230.5)


def test_ratio() -> None:
    assert _values.parse_ratio("200:5") == 40.0


@pytest.mark.parametrize("text", ["200", "200/5", "200:0", "0:5", "a:b", ":", "-200:5", "nan:5"])
def test_not_a_ratio(text: str) -> None:
    with pytest.raises(ValueError, match="write primary:secondary, for instance 200:5"):
        _values.parse_ratio(text)


def explain(registers: list[int], expected: float, type_name: str = "uint16", **options: object) -> list[str]:
    settings = {"tolerance": 0.02, "word_order": "big", "scale": 1.0, "ct_ratio": None, **options}
    findings = _values.explain(registers, expected, type_name=type_name, **settings)  # type: ignore[arg-type]  # settings of several types
    assert all(finding["message"] for finding in findings)
    return [finding["finding"] for finding in findings]


def test_agreement_needs_no_explanation() -> None:
    assert explain([231], 230) == []


@pytest.mark.parametrize("factor", [10, 100, 1000])
def test_scale_too_large(factor: int) -> None:
    assert explain([23 * factor], 23) == ["scale"]


@pytest.mark.parametrize("factor", [0.1, 0.01, 0.001])
def test_scale_too_small(factor: float) -> None:
    assert explain([23], 23 / factor) == ["scale"]


def test_scale_message_says_the_factor() -> None:
    (finding,) = _values.explain([2300], 230.0, 0.02, "uint16", "big", 1.0)
    assert finding["message"] == "10 times the expected: multiply the scale of this register by 0.1"


def test_swapped_words() -> None:
    assert explain(registers_of(">f", 231.4)[::-1], 231.4, "float32") == ["word_order"]
    assert explain(registers_of(">I", 70000)[::-1], 70000, "uint32") == ["word_order"]


def test_integer_taken_for_a_float() -> None:
    assert explain(registers_of(">i", 70000), 70000, "float32")[0] == "type"


def test_backward_transformer() -> None:
    assert explain(registers_of(">h", -4200), 4200, "int16") == ["polarity"]


def test_ct_ratio_applied_twice_or_not_at_all() -> None:
    assert explain([40 * 120], 120, ct_ratio="200:5") == ["ct_ratio"]
    assert explain([120], 40 * 120, ct_ratio="200:5") == ["ct_ratio"]


def test_ct_ratio_of_ten_leaves_both_explanations() -> None:
    assert explain([1200], 120, ct_ratio="50:5") == ["ct_ratio", "scale"]


def test_nothing_explains_noise() -> None:
    assert explain([12345], 230) == []


def test_zero_explains_nothing() -> None:
    assert explain([5], 0) == []
    assert explain([0], 230) == []
    assert _values.close(0, 0.0, 0.05)
