"""The instructions of the Game Boy's processor as bytes. Source: Pan Docs (gbdev.io), chapter "CPU Instruction Set"."""

from __future__ import annotations

from collections.abc import Callable

REGISTERS = ("b", "c", "d", "e", "h", "l", "[hl]", "a")
PAIRS = ("bc", "de", "hl", "sp")
STACKED = ("bc", "de", "hl", "af")
CONDITIONS = ("nz", "z", "nc", "c")
POINTERS = ("[bc]", "[de]", "[hl+]", "[hl-]")
PLAIN = {
    "nop": 0x00, "rlca": 0x07, "rrca": 0x0F, "rla": 0x17, "rra": 0x1F, "daa": 0x27, "cpl": 0x2F, "scf": 0x37,
    "ccf": 0x3F, "halt": 0x76, "ret": 0xC9, "reti": 0xD9, "di": 0xF3, "ei": 0xFB,
}  # fmt: skip
ARITHMETIC = ("add", "adc", "sub", "sbc", "and", "xor", "or", "cp")
SHIFTS = ("rlc", "rrc", "rl", "rr", "sla", "sra", "swap", "srl")
BITS = ("bit", "res", "set")
Value = Callable[[str], int]


def encode(name: str, operands: list[str], value: Value, here: int) -> bytes:
    """The bytes of one instruction at address ``here``. ``value`` reads an expression. ValueError for none."""
    made = _encode(name, [one.replace(" ", "") if one.startswith("[") else one for one in operands], value, here)
    if made is None:
        raise ValueError("there is no such instruction")
    return made


def _encode(name: str, operands: list[str], value: Value, here: int) -> bytes | None:
    if not operands:
        return bytes([PLAIN[name]]) if name in PLAIN else None
    if name == "ld":
        return _load(operands[0], operands[1], value)
    if name == "ldh":
        return _load_high(operands[0], operands[1], value)
    if name in ("jr", "jp", "call", "ret"):
        return _jump(name, operands, value, here)
    if name in ("inc", "dec"):
        less = name == "dec"
        if operands[0] in REGISTERS:
            return bytes([0x04 + less | REGISTERS.index(operands[0]) << 3])
        return bytes([0x03 + 8 * less | PAIRS.index(operands[0]) << 4])
    if name in ("push", "pop"):
        return bytes([(0xC5 if name == "push" else 0xC1) | STACKED.index(operands[0]) << 4])
    if name == "add" and operands[0] == "hl":
        return bytes([0x09 | PAIRS.index(operands[1]) << 4])
    if name in ARITHMETIC:
        kind, operand = ARITHMETIC.index(name) << 3, operands[-1]
        if operand in REGISTERS:
            return bytes([0x80 | kind | REGISTERS.index(operand)])
        return bytes([0xC6 | kind, _byte(value(operand))])
    if name in SHIFTS:
        return bytes([0xCB, SHIFTS.index(name) << 3 | REGISTERS.index(operands[0])])
    if name in BITS:
        return bytes([0xCB, 0x40 * (1 + BITS.index(name)) | value(operands[0]) << 3 | REGISTERS.index(operands[1])])
    return None


def _load(into: str, what: str, value: Value) -> bytes | None:
    if into in REGISTERS and what in REGISTERS and (into, what) != ("[hl]", "[hl]"):
        return bytes([0x40 | REGISTERS.index(into) << 3 | REGISTERS.index(what)])
    if into in POINTERS and what == "a":
        return bytes([0x02 | POINTERS.index(into) << 4])
    if into == "a" and what in POINTERS:
        return bytes([0x0A | POINTERS.index(what) << 4])
    if (into, what) == ("sp", "hl"):
        return b"\xf9"
    if into in REGISTERS and not what.startswith("["):
        return bytes([0x06 | REGISTERS.index(into) << 3, _byte(value(what))])
    if into in PAIRS:
        return bytes([0x01 | PAIRS.index(into) << 4]) + _word(value(what))
    if into.startswith("[") and what == "a":
        return b"\xea" + _word(value(into[1:-1]))
    return b"\xfa" + _word(value(what[1:-1])) if into == "a" else None


def _load_high(into: str, what: str, value: Value) -> bytes | None:
    """From and to the page 0xFF00, whose addresses are given with or without it."""
    if into == "a" and what.startswith("["):
        return b"\xf2" if what == "[c]" else bytes([0xF0, value(what[1:-1]) & 0xFF])
    if what == "a" and into.startswith("["):
        return b"\xe2" if into == "[c]" else bytes([0xE0, value(into[1:-1]) & 0xFF])
    return None


def _jump(name: str, operands: list[str], value: Value, here: int) -> bytes | None:
    if (name, operands) == ("jp", ["hl"]):
        return b"\xe9"
    condition = CONDITIONS.index(operands[0]) << 3 if operands[0] in CONDITIONS else None
    if name == "ret":
        return None if condition is None else bytes([0xC0 | condition])
    if condition is not None and len(operands) == 1:
        return None
    goal = value(operands[-1])
    if name == "jr":
        away = goal - here - 2
        if not -128 <= away <= 127:
            raise ValueError(f"jr reaches 128 bytes back and 127 on, and this is {away}; use jp")
        return bytes([0x18 if condition is None else 0x20 | condition, away % 256])
    alone, under = (0xC3, 0xC2) if name == "jp" else (0xCD, 0xC4)
    return bytes([alone if condition is None else under | condition]) + _word(goal)


def _byte(number: int) -> int:
    if not -128 <= number <= 255:
        raise ValueError(f"{number} does not fit into a byte")
    return number % 256


def _word(number: int) -> bytes:
    if not -32768 <= number <= 65535:
        raise ValueError(f"{number} does not fit into two bytes")
    return (number % 65536).to_bytes(2, "little")
