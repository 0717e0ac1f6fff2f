"""Encodings of instructions against the table of the processor."""

from __future__ import annotations

import pytest

from offbeat.envs.gameboy.instructions import encode

KNOWN = """
nop 00; halt 76; ret C9; reti D9; di F3; ei FB; daa 27; cpl 2F; scf 37; ccf 3F; rlca 07; rrca 0F; rla 17; rra 1F
ld b, c 41; ld [hl], a 77; ld a, [hl] 7E; ld h, l 65; ld l, 0x12 2E12; ld [hl], 3 3603; ld a, -1 3EFF
ld bc, 0x1234 013412; ld de, 1 110100; ld hl, 1 210100; ld sp, 0xD000 3100D0; ld sp, hl F9
ld [bc], a 02; ld [de], a 12; ld [hl+], a 22; ld [hl-], a 32; ld a, [bc] 0A; ld a, [de] 1A; ld a, [hl+] 2A
ld a, [hl-] 3A
ld [0xC000], a EA00C0; ld a, [0xC0A0] FAA0C0; ld a, [0xC0A0 + 1] FAA1C0
ldh [0xFF40], a E040; ldh a, [0x44] F044; ldh [c], a E2; ldh a, [c] F2
inc b 04; inc [hl] 34; inc a 3C; dec c 0D; dec [hl] 35; inc bc 03; inc sp 33; dec hl 2B
add a, b 80; adc a, [hl] 8E; sub c 91; sbc a, d 9A; and e A3; xor a AF; or h B4; cp l BD
add a, 1 C601; adc a, 2 CE02; sub 3 D603; sbc a, 4 DE04; and 5 E605; xor 6 EE06; or 7 F607; cp 8 FE08
add hl, bc 09; add hl, de 19; add hl, hl 29; add hl, sp 39
push bc C5; push af F5; pop de D1; pop hl E1
jp 0x150 C35001; jp nz, 0x150 C25001; jp c, 1 DA0100; jp hl E9; call 2 CD0200; call z, 2 CC0200; ret nz C0; ret c D8
jr 0x102 1800; jr nz, 0x100 20FE; jr c, 0x181 387F; jr nc, 0x82 3080
rlc b CB00; rrc c CB09; rl d CB12; rr e CB1B; sla h CB24; sra l CB2D; swap a CB37; srl [hl] CB3E
bit 0, b CB40; bit 7, h CB7C; res 3, [hl] CB9E; set 6, a CBF7
"""


@pytest.mark.parametrize("line", [one.strip() for one in KNOWN.replace("\n", ";").split(";") if one.strip()])
def test_encodings(line: str) -> None:
    text, _, code = line.rpartition(" ")
    name, _, rest = text.partition(" ")
    operands = [one.strip() for one in rest.split(",") if one.strip()]
    made = encode(name, operands, lambda expression: sum(int(part, 0) for part in expression.split("+")), 0x100)
    assert made.hex().upper() == code


@pytest.mark.parametrize("text", ["ld b, [de]", "ldh b, [c]", "push sp", "jp nz", "ret 3", "inc x", "swap"])
def test_there_are_no_others(text: str) -> None:
    name, _, rest = text.partition(" ")
    with pytest.raises(ValueError):
        encode(name, [one.strip() for one in rest.split(",") if one], int, 0)
