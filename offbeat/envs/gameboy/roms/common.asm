; What both cartridges share: the start, waiting, buttons, text and numbers on the screen.
;
; A frame is played like this: in the middle of the picture, at line 100, buttons are read and the rules applied; at its
; end, while nothing is drawn, the picture's map is written. So it does not matter where exactly an emulator ends a frame,
; and what a frame did is seen in the next one.

P1 = 0xFF00
DIV = 0xFF04
IF = 0xFF0F
LCDC = 0xFF40
STAT = 0xFF41
LY = 0xFF44
LYC = 0xFF45
BGP = 0xFF47
IE = 0xFFFF
MAP = 0x9800
TILES = 0x8000

; Memory of both. Buttons are bits: 0 A, 1 B, 2 SELECT, 3 START, 4 RIGHT, 5 LEFT, 6 UP, 7 DOWN.
HELD = 0xFF80
PRESSED = 0xFF81
FRAMES = 0xFF82
SEED = 0xC0F0       ; two bytes; 0: from the moment at which the game is started
READY = 0xC0F2      ; 1 once the cartridge waits for a start

BUTTON_A = 0x01
BUTTON_B = 0x02
BUTTON_START = 0x08
BUTTON_RIGHT = 0x10
BUTTON_LEFT = 0x20
BUTTON_UP = 0x40
BUTTON_DOWN = 0x80

    org 0x100
    nop
    jp start

    org 0x150
start:
    di
    ld sp, 0xD000
.drawing:
    ldh a, [LY]
    cp 144
    jr c, .drawing
    xor a
    ldh [LCDC], a
    ld hl, 0xC000
.memory:
    ld [hl+], a
    bit 5, h            ; 0xE000 is the first address that has it
    jr z, .memory
    ld hl, 0x8000
.picture:
    xor a
    ld [hl+], a
    ld a, h
    cp 0xA0
    jr nz, .picture
    ld hl, 0xFF80
.high_memory:
    xor a
    ld [hl+], a
    ld a, l
    cp 0xFF
    jr nz, .high_memory
    ld hl, TILES + 16 * 48      ; the tile of a character has its number in ASCII
    ld de, font
    ld b, 80
    call load_tiles
    ld hl, TILES + 16 * 65
    ld de, font + 80
    ld b, 208
    call load_tiles
    call prepare
    ld a, 0xE4                  ; 0 white to 3 black
    ldh [BGP], a
    ld a, 100
    ldh [LYC], a
    ld a, 0x40
    ldh [STAT], a
    ld a, 0x91
    ldh [LCDC], a
    ld a, 1
    ld [READY], a
main:
    ld a, 2
    call wait
    ld hl, FRAMES
    inc [hl]
    call read_buttons
    call rules
    ld a, 1
    call wait
    call draw
    jr main

; Wait for the interrupts A, none of which is served: halt ends, and the program goes on.
wait:
    ldh [IE], a
    xor a
    ldh [IF], a
    halt
    nop
    ret

; What is held, and what was not held a frame ago.
read_buttons:
    ld a, 0x20
    ldh [P1], a
    rept 4
    ldh a, [P1]
    endr
    cpl
    and 0x0F
    swap a
    ld b, a
    ld a, 0x10
    ldh [P1], a
    rept 6
    ldh a, [P1]
    endr
    cpl
    and 0x0F
    or b
    ld b, a
    ld a, 0x30
    ldh [P1], a
    ldh a, [HELD]
    cpl
    and b
    ldh [PRESSED], a
    ld a, b
    ldh [HELD], a
    ret

; B bytes of tiles from DE to HL, a line of dots a byte, in black on white.
load_tiles:
    ld a, [de]
    inc de
    ld [hl+], a
    ld [hl+], a
    dec b
    jr nz, load_tiles
    ret

; The text at DE, up to a zero, to HL.
write_text:
    ld a, [de]
    and a
    ret z
    ld [hl+], a
    inc de
    jr write_text

; The two digits of A to HL.
write_digits:
    ld b, a
    swap a
    and 0x0F
    add a, 48
    ld [hl+], a
    ld a, b
    and 0x0F
    add a, 48
    ld [hl+], a
    ret

; Where no seed was given, one from now on.
make_seed:
    ld a, [SEED]
    ld b, a
    ld a, [SEED + 1]
    or b
    ret nz
    ldh a, [DIV]
    or 1
    ld [SEED], a
    ldh a, [FRAMES]
    ld [SEED + 1], a
    ret

; The next random number in HL, its high byte also in A: seed * 261 + 13849.
random:
    ld a, [SEED]
    ld e, a
    ld a, [SEED + 1]
    ld d, a
    ld h, d
    ld l, e
    add hl, hl
    add hl, hl
    add hl, de
    ld a, h
    add a, e
    ld h, a
    ld de, 13849
    add hl, de
    ld a, l
    ld [SEED], a
    ld a, h
    ld [SEED + 1], a
    ret

font:
    include "font.asm"
