; A small battle of creatures in turns: against a trainer's one to three, or against a wild one that can be caught.
;
; A and B are two moves: one of them hits hard, which one depends on the kind of the foe, and that is seen. LEFT or RIGHT
; lets the next creature fight; UP throws a ball at a wild one, DOWN flees from it. START begins a battle with a trainer,
; SELECT one with a wild creature. A turn takes eight frames.
;
; The memory that is read from outside lies where games of this kind have it; points of health are big-endian.

    include "common.asm"

IN_BATTLE = 0xD057  ; 0 none, 1 a wild one, 2 a trainer, 0xFF lost
PARTY = 0xD163      ; own creatures
MY_HP = 0xD16C      ; two bytes each, 44 apart
MY_EXP = 0xD179     ; three bytes each, 44 apart
OWNED = 0xD2F7      ; a bit for each kind that was ever caught
BALLS = 0xD31F
MONEY = 0xD347      ; three bytes of decimal digits, the highest first
BOX = 0xDA80        ; caught ones of a kind that was known
FOE_HP = 0xD8A5     ; two bytes each, 44 apart; those of trainers
WILD_HP = 0xCFE6    ; two bytes

WANTED = 0xC0F3     ; what a start begins: 1 a wild one, 2 a trainer, 0 as the button says
ENCOUNTER = 0xC0F4  ; 0 to 5: how strong the other side is
STATE = 0xFFE1      ; 0 in play, 1 over, 7 waiting for a start

FIGHTER = 0xFF90    ; which of the own ones fights
FOE = 0xFF91        ; which of the trainer's
FOES = 0xFF92       ; how many he has
KIND = 0xFF93       ; of the foe: the move that hits hard, 0 or 1
SPECIES = 0xFF94    ; of a wild one: its bit
TIMER = 0xFF95      ; frames until buttons count again
ENDING = 0xFF96     ; frames until the battle is over; 0: it goes on
MODE = 0xFF97       ; 1 a wild one, 2 a trainer

OWN = 3
HEALTH = 12
TURN = 8
HARD = 9
WEAK = 3
BAR_TILE = 3
PLAYING = 0
OVER = 1
WAITING = 7

prepare:
    ld hl, TILES + 16
    ld de, tiles
    ld b, 24
    call load_tiles
    ld hl, MAP + 32 * 9 + 1
    ld de, own_text
    call write_text
    ld a, WAITING
    ldh [STATE], a
    ret

rules:
    ldh a, [STATE]
    and a
    jp z, in_play
    ldh a, [PRESSED]
    ld b, 2
    bit 3, a
    jr nz, .start
    dec b
    bit 2, a
    ret z
.start:
    ld a, [WANTED]
    and a
    jr nz, .wanted
    ld a, b
.wanted:
    ldh [MODE], a
    ld [IN_BATTLE], a
    call make_seed
    xor a
    ldh [FIGHTER], a
    ldh [FOE], a
    ldh [TIMER], a
    ldh [ENDING], a
    ldh [STATE], a
    ld [WILD_HP + 1], a
    ld [FOE_HP + 1], a
    ld [FOE_HP + 45], a
    ld [FOE_HP + 89], a
    ld a, 10
    ld [BALLS], a
    ld a, OWN
    ld [PARTY], a
    ld a, HEALTH
    ld [MY_HP + 1], a
    ld [MY_HP + 45], a
    ld [MY_HP + 89], a
    ld a, [ENCOUNTER]
    add a, a
    add a, 10
    ld c, a                 ; the health of a foe
    ldh a, [MODE]
    dec a
    jr z, .wild
    ld a, [ENCOUNTER]
    srl a
    inc a
    ldh [FOES], a
    ld b, a
    ld hl, FOE_HP + 1
    ld de, 44
.foe:
    ld [hl], c
    add hl, de
    dec b
    jr nz, .foe
    jr new_kind
.wild:
    ld a, 1
    ldh [FOES], a
    ld a, c
    ld [WILD_HP + 1], a
    call random
    rlca
    rlca
    rlca
    and 7
    ld b, a
    inc b
    ld a, 0x80
.species:
    rlca
    dec b
    jr nz, .species
    ldh [SPECIES], a
    ld b, a
    ld a, [ENCOUNTER]
    cp 3
    jr c, new_kind          ; one that is not known yet
    ld a, b
    ld [OWNED], a

new_kind:
    call random
    rlca
    and 1
    ldh [KIND], a
    ret

in_play:
    ldh a, [ENDING]
    and a
    jr nz, .ending
    ldh a, [TIMER]
    and a
    jr z, .ready
    dec a
    ldh [TIMER], a
    ret
.ending:
    dec a
    ldh [ENDING], a
    ret nz
    ld [IN_BATTLE], a
    ld a, OVER
    ldh [STATE], a
    ret
.ready:
    ldh a, [HELD]
    ld b, a
    and BUTTON_A | BUTTON_B | BUTTON_LEFT | BUTTON_RIGHT | BUTTON_UP | BUTTON_DOWN
    ret z
    ld a, TURN
    ldh [TIMER], a
    ld a, b
    and BUTTON_LEFT | BUTTON_RIGHT
    jp nz, next_fighter
    ld c, 0
    bit 0, b
    jp nz, strike
    inc c
    bit 1, b
    jp nz, strike
    ldh a, [MODE]
    dec a
    ret nz
    bit 6, b
    jp nz, throw
end_battle:                 ; flee
    ld a, TURN
    ldh [ENDING], a
    ret

; Move C, and what the foe does then.
strike:
    call foe_health
    ldh a, [KIND]
    cp c
    ld b, HARD
    jr z, .hits
    ld b, WEAK
.hits:
    call wound
    jr nz, strike_back
    call fighter_health
    ld de, MY_EXP + 2 - MY_HP - 1
    add hl, de
    ld a, [hl]
    add a, 10
    ld [hl], a
    ldh a, [MODE]
    dec a
    jp z, end_battle
    ld hl, FOE
    inc [hl]
    ldh a, [FOES]
    cp [hl]
    jp nz, new_kind
    ld a, [MONEY + 1]
    add a, 1
    daa
    ld [MONEY + 1], a
    jp end_battle

strike_back:
    call random
    rlca
    rlca
    and 3
    add a, 3
    ld b, a
    call fighter_health
    call wound
    ret nz
    call next_fighter
    call fighter_health
    ld a, [hl]
    and a
    ret nz
    ld a, 0xFF
    ld [IN_BATTLE], a
    jp end_battle

; A ball: it holds one of six points and fewer, and sometimes another.
throw:
    ld hl, BALLS
    ld a, [hl]
    and a
    ret z
    dec [hl]
    ld a, [WILD_HP + 1]
    cp 7
    jr c, .caught
    call random
    cp 48
    jr nc, strike_back
.caught:
    ldh a, [SPECIES]
    ld b, a
    ld a, [OWNED]
    ld c, a
    and b
    jr nz, .known
    ld a, c
    or b
    ld [OWNED], a
    jp end_battle
.known:
    ld hl, BOX
    inc [hl]
    jp end_battle

; The next of the own ones that stands; the same where there is no other.
next_fighter:
    ld b, OWN
.next:
    ldh a, [FIGHTER]
    inc a
    cp OWN
    jr nz, .one
    xor a
.one:
    ldh [FIGHTER], a
    call fighter_health
    ld a, [hl]
    and a
    ret nz
    dec b
    jr nz, .next
    ret

; Take B points from [HL], down to none: Z where none is left.
wound:
    ld a, [hl]
    sub b
    jr nc, .left
    xor a
.left:
    ld [hl], a
    and a
    ret

; HL: the points of who fights, the low byte.
fighter_health:
    ldh a, [FIGHTER]
    ld hl, MY_HP + 1
    jr nth
foe_health:
    ld hl, WILD_HP + 1
    ldh a, [MODE]
    dec a
    ret z
    ldh a, [FOE]
    ld hl, FOE_HP + 1
nth:
    ld de, 44
.add:
    and a
    ret z
    add hl, de
    dec a
    jr .add

draw:
    ld d, 0                 ; the foe's picture
    ldh a, [STATE]
    and a
    jr nz, .picture
    ldh a, [KIND]
    inc a
    ld d, a
.picture:
    ld hl, MAP + 32 * 2 + 13
    ld bc, 28
    ld a, d
    rept 4
    ld [hl+], a
    ld [hl+], a
    ld [hl+], a
    ld [hl+], a
    add hl, bc
    endr
    ldh a, [FOE]
    ld b, a
    ldh a, [FOES]
    cp b
    jr z, .no_foe           ; the last one has fallen
    call foe_health
    ld a, [hl]
    jr .foe
.no_foe:
    xor a
.foe:
    ld hl, MAP + 32 * 7 + 9
    call bar
    ld a, [MY_HP + 1]
    ld hl, MAP + 32 * 10 + 2
    call bar
    ld a, [MY_HP + 45]
    ld hl, MAP + 32 * 12 + 2
    call bar
    ld a, [MY_HP + 89]
    ld hl, MAP + 32 * 14 + 2
    call bar
    ldh a, [FIGHTER]        ; a mark beside who fights
    add a, a
    add a, 10
    ld b, a
    ld c, 10
    ld hl, MAP + 32 * 10 + 1
    ld de, 64
.mark:
    ld a, c
    cp b
    ld a, 0
    jr nz, .other
    ld a, BAR_TILE
.other:
    ld [hl], a
    add hl, de
    inc c
    inc c
    ld a, c
    cp 16
    jr nz, .mark
    ld de, start_text
    ldh a, [STATE]
    cp WAITING
    jr z, .say
    ld de, over_text
    cp OVER
    jr z, .say
    ld de, wild_text
    ldh a, [MODE]
    dec a
    jr z, .say
    ld de, trainer_text
.say:
    ld hl, MAP + 32 * 2 + 2
    jp write_text

; Ten tiles from HL, as many of them full as A has pairs.
bar:
    inc a
    srl a
    ld b, a
    ld c, 10
.tile:
    ld a, b
    and a
    jr z, .empty
    dec b
    ld a, BAR_TILE
.empty:
    ld [hl+], a
    dec c
    jr nz, .tile
    ret

own_text: db "OWN", 0
start_text: db "START  ", 0
over_text: db "OVER   ", 0
wild_text: db "WILD   ", 0
trainer_text: db "TRAINER", 0

tiles:                      ; the foe of kind 0, of kind 1, a part of a bar
    db 0x3C, 0x7E, 0xFF, 0xFF, 0xFF, 0xFF, 0x7E, 0x3C
    db 0x81, 0x42, 0x24, 0x18, 0x18, 0x24, 0x42, 0x81
    db 0x00, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x00
