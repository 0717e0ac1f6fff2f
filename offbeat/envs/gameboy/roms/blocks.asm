; A small falling-block game. Pieces of one to three cells fall into a well of 4 x 8; full rows vanish.
;
; LEFT and RIGHT move, A and B turn, DOWN lets a piece fall faster, A or START starts a game.
; Memory that is read from outside: SCORE, LINES and LEVEL are decimal digits, two a byte, the lowest first.

    include "common.asm"

SCORE = 0xC0A0      ; three bytes
LINES = 0xFF9E      ; two bytes
LEVEL = 0xFFA9      ; lines / 10
STATE = 0xFFE1      ; 0 in play, 1 over, 7 waiting for a start

SHAPE = 0xFF90      ; 0 to 3
TURN = 0xFF91       ; 0 to 3
PLACE = 0xFF92      ; of its first cell in the well: 8 * row + column
TIMER = 0xFF93      ; frames until it falls by a row
REPEAT = 0xFF94     ; frames until a held LEFT or RIGHT moves it again

WELL = 0xC100       ; rows of 8 cells, columns 1 to 4 and rows 0 to 7 of them within the walls: 0 empty, 1 full
VIEW = 0xC200       ; what is shown: the well with the falling piece, which is 2

GRAVITY = 16
SOFT = 2
AGAIN = 4
PLAYING = 0
OVER = 1
WAITING = 7
CORNER = MAP + 32 + 3       ; of the well on the screen
PANEL = MAP + 32 + 13
WALL_TILE = 3

prepare:
    ld hl, TILES + 16
    ld de, cell_tiles
    ld b, 24
.tile:                      ; both bytes of a line of dots
    ld a, [de]
    inc de
    ld [hl+], a
    ld a, [de]
    inc de
    ld [hl+], a
    dec b
    jr nz, .tile
    ld hl, CORNER - 1
    ld b, 17
.wall:
    ld [hl], WALL_TILE
    ld de, 9
    add hl, de
    ld [hl], WALL_TILE
    ld de, 23
    add hl, de
    dec b
    jr nz, .wall
    ld hl, CORNER + 16 * 32
    ld b, 8
    ld a, WALL_TILE
.floor:
    ld [hl+], a
    dec b
    jr nz, .floor
    ld hl, PANEL
    ld de, score_text
    call write_text
    ld hl, PANEL + 4 * 32
    ld de, lines_text
    call write_text
    ld a, WAITING
    ldh [STATE], a
    jp clear_well

; An empty well, and the same view of it.
clear_well:
    ld hl, WELL
.cell:
    ld a, l
    cp 64
    jr nc, .wall
    and 7
    jr z, .wall
    cp 5
    jr nc, .wall
    xor a
    jr .put
.wall:
    ld a, 1
.put:
    ld [hl], a
    inc l
    ld a, l
    cp 128
    jr nz, .cell
    ret

rules:
    ldh a, [STATE]
    and a
    jr z, .in_play
    ldh a, [PRESSED]
    and BUTTON_A | BUTTON_START
    ret z
    call make_seed
    call clear_well
    xor a
    ld [SCORE], a
    ld [SCORE + 1], a
    ld [SCORE + 2], a
    ldh [LINES], a
    ldh [LINES + 1], a
    ldh [LEVEL], a
    ldh [STATE], a
    ld a, AGAIN
    ldh [REPEAT], a
    call spawn
    jp show
.in_play:
    call turn_piece
    call move_piece
    ldh a, [HELD]
    and BUTTON_DOWN
    jr z, .slow
    ldh a, [TIMER]
    cp SOFT
    jr c, .slow
    ld a, SOFT
    ldh [TIMER], a
.slow:
    ldh a, [TIMER]
    dec a
    ldh [TIMER], a
    call z, fall
    jp show

turn_piece:
    ldh a, [PRESSED]
    ld b, 1
    bit 0, a
    jr nz, .try
    ld b, -1
    bit 1, a
    ret z
.try:
    ldh a, [TURN]
    add a, b
    and 3
    ld e, a
    ldh a, [PLACE]
    ld d, a
    call fits
    ret nz
    ld a, e
    ldh [TURN], a
    ret

move_piece:
    ldh a, [HELD]
    ld e, -1
    bit 5, a
    jr nz, .held
    ld e, 1
    bit 4, a
    ret z
.held:
    ldh a, [PRESSED]
    and BUTTON_LEFT | BUTTON_RIGHT
    jr nz, .now
    ldh a, [REPEAT]
    dec a
    ldh [REPEAT], a
    ret nz
.now:
    ld a, AGAIN
    ldh [REPEAT], a
    ldh a, [PLACE]
    add a, e
    ld d, a
    ldh a, [TURN]
    ld e, a
    call fits
    ret nz
    ld a, d
    ldh [PLACE], a
    ret

fall:
    call set_timer
    ldh a, [PLACE]
    add a, 8
    ld d, a
    ldh a, [TURN]
    ld e, a
    call fits
    jr nz, .lands
    ld a, d
    ldh [PLACE], a
    ret
.lands:
    ld b, high(WELL)
    ld e, 1
    call mark
    call take_rows
    ld a, c
    and a
    call nz, count_rows
    jp spawn

; Take full rows away; C is how many there were.
take_rows:
    ld hl, WELL + 8 * 7 + 1     ; each row from the lowest on
    ld d, h
    ld e, l                     ; and where it goes to
    ld b, 8
    ld c, 0
.row:
    ld a, [hl+]
    and [hl]
    inc l
    and [hl]
    inc l
    and [hl]
    jr z, .keep
    inc c
    ld a, l
    sub 11
    ld l, a
    jr .next
.keep:
    dec l
    dec l
    dec l
    rept 4
    ld a, [hl+]
    ld [de], a
    inc e
    endr
    ld a, l
    sub 12
    ld l, a
    ld a, e
    sub 12
    ld e, a
.next:
    dec b
    jr nz, .row
    ld b, c
    inc b
.empty:
    dec b
    ret z
    xor a
    rept 4
    ld [de], a
    inc e
    endr
    ld a, e
    sub 12
    ld e, a
    jr .empty

; Points and lines for C rows.
count_rows:
    ld hl, points - 2
    ld b, 0
    add hl, bc
    add hl, bc
    ld a, [hl+]
    ld d, [hl]
    ld e, a
    ld a, [SCORE]
    add a, e
    daa
    ld [SCORE], a
    ld a, [SCORE + 1]
    adc a, d
    daa
    ld [SCORE + 1], a
    ld a, [SCORE + 2]
    adc a, 0
    daa
    ld [SCORE + 2], a
    ldh a, [LINES]
    add a, c
    daa
    ldh [LINES], a
    ldh a, [LINES + 1]
    adc a, 0
    daa
    ldh [LINES + 1], a
    swap a
    and 0xF0
    ld b, a
    ldh a, [LINES]
    swap a
    and 0x0F
    or b
    ldh [LEVEL], a
    ret

; The next piece, in column 1 or 2; the game is over where it does not fit.
spawn:
    call random
    ld d, a
    swap a
    rrca
    and 7
    add a, low(bag)
    ld l, a
    ld h, high(bag)
    ld a, [hl]
    ldh [SHAPE], a
    ld a, d
    rrca
    rrca
    rrca
    and 1
    inc a
    ldh [PLACE], a
    ld d, a
    ld e, 0
    ld a, e
    ldh [TURN], a
    call set_timer
    call fits
    ret z
    ld a, OVER
    ldh [STATE], a
    ret

; Frames until the piece falls: two fewer for each level up to the sixth. DE stays.
set_timer:
    ldh a, [LEVEL]
    cp 6
    jr c, .known
    ld a, 6
.known:
    add a, a
    ld b, a
    ld a, GRAVITY
    sub b
    ldh [TIMER], a
    ret

; Z where the piece, turned by E, fits with its first cell at D. DE stay.
fits:
    ld a, e
    add a, a
    add a, a
    ld l, a
    ldh a, [SHAPE]
    swap a
    add a, l
    ld l, a
    ld h, high(shapes)
    ld b, high(WELL)
    rept 3
    ld a, [hl+]
    add a, d
    ld c, a
    ld a, [bc]
    and a
    ret nz
    endr
    ret

; Put E into the cells of the piece in the page B.
mark:
    ldh a, [TURN]
    add a, a
    add a, a
    ld l, a
    ldh a, [SHAPE]
    swap a
    add a, l
    ld l, a
    ld h, high(shapes)
    ldh a, [PLACE]
    ld d, a
    rept 3
    ld a, [hl+]
    add a, d
    ld c, a
    ld a, e
    ld [bc], a
    endr
    ret

; What is to be seen.
show:
    ld hl, WELL
    ld de, VIEW
.cell:
    ld a, [hl+]
    ld [de], a
    inc e
    bit 6, e
    jr z, .cell
    ldh a, [STATE]
    and a
    ret nz
    ld b, high(VIEW)
    ld e, 2
    jp mark

draw:
    ld hl, CORNER
    ld de, VIEW + 1
    ld bc, 24
.row:
    rept 4
    ld a, [de]
    inc e
    ld [hl+], a
    ld [hl+], a
    endr
    add hl, bc
    dec e
    dec e
    dec e
    dec e
    rept 4
    ld a, [de]
    inc e
    ld [hl+], a
    ld [hl+], a
    endr
    add hl, bc
    ld a, e
    add a, 4
    ld e, a
    bit 6, e
    jr z, .row
    ld hl, PANEL + 32
    ld a, [SCORE + 2]
    call write_digits
    ld a, [SCORE + 1]
    call write_digits
    ld a, [SCORE]
    call write_digits
    ld hl, PANEL + 5 * 32
    ldh a, [LINES + 1]
    call write_digits
    ldh a, [LINES]
    call write_digits
    ld de, start_text
    ldh a, [STATE]
    cp WAITING
    jr z, .say
    ld de, over_text
    cp OVER
    jr z, .say
    ld de, no_text
.say:
    ld hl, PANEL + 9 * 32
    jp write_text

score_text: db "SCORE", 0
lines_text: db "LINES", 0
start_text: db "START", 0
over_text: db "OVER ", 0
no_text: db "     ", 0
points: db 0x40, 0x00, 0x00, 0x01, 0x00, 0x03

cell_tiles:                 ; full, falling, wall
    db 0xFF, 0xFF, 0xC3, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0xC3, 0xFF, 0xFF, 0xFF
    db 0xFF, 0xFF, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0x81, 0xFF, 0xFF
    db 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF

    org 0x1000
shapes:                     ; where the cells are beside the first place, for each turn
    rept 4
    db 0, 0, 0, 0
    endr
    rept 2
    db 0, 1, 1, 0,  0, 8, 8, 0
    endr
    rept 2
    db 0, 1, 2, 0,  0, 8, 16, 0
    endr
    db 0, 8, 9, 0,  0, 1, 8, 0,  0, 1, 9, 0,  1, 8, 9, 0
bag:
    db 0, 0, 0, 1, 1, 1, 2, 3
