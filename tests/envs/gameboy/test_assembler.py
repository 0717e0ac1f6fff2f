"""The assembler: known encodings, names before and after, its errors; our cartridges come out as they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.envs.gameboy.assembler import AssemblyError, assemble, build, lines_of
from offbeat.envs.gameboy.cartridges import TITLES, made
from offbeat.envs.gameboy.folders import ROMS


def of(text: str) -> bytes:
    """What a source assembles to, up to the last byte that is not zero."""
    return assemble([(f"x:{number}", line) for number, line in enumerate(text.splitlines(), 1) if line]).rstrip(b"\0")


def test_labels_constants_and_repetitions() -> None:
    assert of("SIZE = 2 * 3\nstart: ld b, SIZE\n.loop: dec b\njr nz, .loop\njp end\nend: ret") == bytes(
        [0x06, 6, 0x05, 0x20, 0xFD, 0xC3, 8, 0, 0xC9]
    )
    assert of("one: jr .here\n.here: nop\ntwo: jr .here\n.here: ret") == bytes([0x18, 0, 0, 0x18, 0, 0xC9])
    assert of("rept 3\ninc a\nendr\nret") == bytes([0x3C] * 3 + [0xC9])
    assert of("rept 2\nhalt\nscf\nendr") == bytes([0x76, 0x37] * 2)


def test_data_and_places() -> None:
    assert of('db 1, -1, "A,B", 0xFF\ndw 0x1234') == b"\x01\xffA,B\xff\x34\x12"
    assert of("ds 3\norg here + 1\ndb low(0x1234), high(0x1234), ~0 & 0b11") == b"\0\0\0\0\x34\x12\x03"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nop\njp nowhere", "x:2: 'jp nowhere': nothing is called nowhere"),
        ("ld b, 256", "256 does not fit into a byte"),
        ("ld [de], b", "x:1"),
        ("frob a", "there is no such instruction"),
        ("a: jr b\nds 200\nb: ret", "jr reaches 128 bytes back and 127 on, and this is 200"),
        ("here2: ret\nhere2: ret", "here2 is there already"),
        ("org 0x7FFF\ndw 1", "there is no room at 0x7fff"),
        ("db 1\norg 0\ndb 2", "there is no room at 0x0000"),
        ("rept 2\nnop", "rept without endr"),
        ("ld a, f(1)", "f(1) is no number"),
    ],
)
def test_errors_name_the_line(text: str, said: str) -> None:
    with pytest.raises(AssemblyError) as error:
        of(text)
    assert said in str(error.value)


def test_sources_include_each_other_and_have_comments(tmp_path: Path) -> None:
    (tmp_path / "a.asm").write_text('  nop ; nothing\n\n; all of it\ninclude "b.asm"\ndb "a;b" ; text\n')
    (tmp_path / "b.asm").write_text("ret\n")
    assert lines_of(tmp_path / "a.asm") == [("a.asm:1", "nop"), ("b.asm:1", "ret"), ("a.asm:5", 'db "a;b"')]


@pytest.mark.parametrize("name", list(TITLES))
def test_cartridges_are_built_as_they_are_kept(name: str) -> None:
    kept = (ROMS / f"{name}.gb").read_bytes()
    assert made(name) == kept, "write them anew: python -m offbeat.envs.gameboy.cartridges"


@pytest.mark.parametrize("name", list(TITLES))
def test_headers_are_right_and_hold_nothing_of_others(name: str) -> None:
    rom = build(ROMS / f"{name}.asm", TITLES[name])
    assert len(rom) == 32768 and rom[0x134:0x144].rstrip(b"\0").decode() == TITLES[name]
    total = 0
    for byte in rom[0x134:0x14D]:
        total = (total - byte - 1) & 0xFF
    assert rom[0x14D] == total
    assert int.from_bytes(rom[0x14E:0x150], "big") == (sum(rom) - rom[0x14E] - rom[0x14F]) & 0xFFFF
    assert not any(rom[0x104:0x134])  # where a logo would be
    assert rom[0x100:0x104] == b"\0\xc3\x50\x01"
