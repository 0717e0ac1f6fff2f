"""A small assembler for the processor of the Game Boy (SM83), with which the cartridges of this folder are built.

The language, one statement a line, ``;`` before a comment:

- ``label:``, and ``.label:`` within the last one; ``NAME = expression`` before it is used for sizes;
- ``org``, ``db`` (numbers and "text"), ``dw``, ``ds`` (zeros), ``include "file"``, and ``rept n`` ... ``endr``;
- instructions: ``ld a, [hl+]``, ``ldh [0x0F], a``, ``bit 3, b``, ``jr nz, .loop``.

Expressions are numbers (10, 0x1F, 0b11), names, ``here``, and + - * / % & | ^ ~ << >> between them, with ``high(x)``
and ``low(x)``. Addresses are the cartridge's: 0 to 0x7FFF.

Source: Pan Docs (gbdev.io), chapters "CPU Instruction Set" and "The Cartridge Header".
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from offbeat.envs.gameboy.instructions import encode

SIZE = 0x8000
"""Bytes of a cartridge without banks."""
TITLE, HEADER_SUM, GLOBAL_SUM = 0x134, 0x14D, 0x14E
"""Where the header has its title, its checksum and that of the whole cartridge."""
OPERATORS: dict[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.floordiv,
    ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.USub: operator.neg, ast.Invert: operator.invert,
}  # fmt: skip


class AssemblyError(ValueError):
    """A line that cannot be assembled; says which and why."""


def build(source: Path, title: str) -> bytes:
    """The cartridge [32768 bytes] of a source file, with its header. ``AssemblyError`` for a line that is wrong.

    The header has no logo: its bytes stay zero. Emulators that start without Nintendo's own boot program do not ask.
    """
    rom = bytearray(assemble(lines_of(source)))
    rom[TITLE : TITLE + len(title)] = title.encode("ascii")
    rom[HEADER_SUM] = -sum(byte + 1 for byte in rom[TITLE:HEADER_SUM]) % 256
    rom[GLOBAL_SUM : GLOBAL_SUM + 2] = (sum(rom) % 65536).to_bytes(2, "big")
    return bytes(rom)


def lines_of(source: Path) -> list[tuple[str, str]]:
    """(place, statement) for each line, includes and repetitions unfolded."""
    found: list[tuple[str, str]] = []
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        statement = _without_comment(line).strip()
        include = re.fullmatch(r'include "([^"]+)"', statement)
        if include:
            found += lines_of(source.parent / include[1])
        elif statement:
            found.append((f"{source.name}:{number}", statement))
    return found


def assemble(lines: list[tuple[str, str]]) -> bytes:
    """The cartridge without a header. Twice over: names that come later are known in the second pass."""
    first = Assembly({}, final=False)
    first.add(lines)
    second = Assembly(first.names, final=True)
    second.add(lines)
    return bytes(second.rom)


class Assembly:
    """One pass over a source: the bytes, and where its names are."""

    def __init__(self, known: Mapping[str, int], final: bool) -> None:
        """``known``: names of the pass before; in the ``final`` one a name that is not among them is an error."""
        self.names: dict[str, int] = {}
        self.rom = bytearray(SIZE)
        self._known, self._final = known, final
        self._here, self._scope = 0, ""

    def add(self, lines: list[tuple[str, str]]) -> None:
        """Assemble statements one after the other."""
        index = 0
        while index < len(lines):
            place, text = lines[index]
            try:
                if text.startswith("rept "):
                    end = next(i for i in range(index, len(lines)) if lines[i][1] == "endr")
                    for _ in range(self._value(text[5:])):
                        self.add(lines[index + 1 : end])
                    index = end
                else:
                    self._statement(text)
            except AssemblyError:
                raise
            except (ValueError, StopIteration, SyntaxError) as error:
                raise AssemblyError(f"{place}: {text!r}: {str(error) or 'rept without endr'}") from error
            index += 1

    def _statement(self, text: str) -> None:
        label = re.match(r"(\.?\w+):\s*", text)
        if label:
            self._define(label[1], self._here)
            text = text[label.end() :]
        constant = re.fullmatch(r"(\w+)\s*=\s*(.+)", text)
        if constant:
            self.names[constant[1]] = self._value(constant[2])
        elif text:
            self._emit(text)

    def _define(self, name: str, value: int) -> None:
        if not name.startswith("."):
            self._scope = name
        full = self._full(name)
        if full in self.names:
            raise ValueError(f"{full} is there already")
        self.names[full] = value

    def _full(self, name: str) -> str:
        return self._scope + name if name.startswith(".") else name

    def _emit(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        operands = _split(rest)
        if name == "org":
            self._here = self._value(rest)
            return
        if name == "ds":
            self._here += self._value(rest)
            return
        if name in ("db", "dw"):
            made = b"".join(self._data(one, 1 if name == "db" else 2) for one in operands)
        else:
            made = encode(name, operands, self._value, self._here)
        if self._here + len(made) > SIZE or any(self.rom[self._here : self._here + len(made)]):
            raise ValueError(f"there is no room at {self._here:#06x}")
        self.rom[self._here : self._here + len(made)] = made
        self._here += len(made)

    def _data(self, operand: str, size: int) -> bytes:
        if operand.startswith('"'):
            return operand.strip('"').encode("ascii")
        return (self._value(operand) % (1 << 8 * size)).to_bytes(size, "little")

    def _value(self, expression: str) -> int:
        text = re.sub(r"(?<![\w.])\.(\w+)", lambda found: f"{self._scope}__{found[1]}", expression.strip())
        return self._of(ast.parse(text, mode="eval").body)

    def _of(self, node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._of(node.left), self._of(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](self._of(node.operand))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("high", "low") and len(node.args) == 1:
            value = self._of(node.args[0])
            return value >> 8 & 0xFF if ast.unparse(node.func) == "high" else value & 0xFF
        raise ValueError(f"{ast.unparse(node)} is no number")

    def _named(self, name: str) -> int:
        if name == "here":
            return self._here
        full = name.replace("__", ".")
        if full in self.names:
            return self.names[full]
        if full not in self._known and self._final:
            raise ValueError(f"nothing is called {full}")
        return self._known.get(full, self._here)


def _without_comment(line: str) -> str:
    return re.sub(r'("[^"]*")|;.*', lambda found: found[1] or "", line)


def _split(rest: str) -> list[str]:
    """Operands between commas, none of which lies in a text."""
    return [one.strip() for one in re.findall(r'\s*"[^"]*"|[^,]+', rest) if one.strip()]
