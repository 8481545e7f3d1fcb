# Counts its starts in nothing at all: says that it is there, and resets.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $RESET, %dx
        mov     $1, %al
        out     %al, %dx
1:      hlt
        jmp     1b
text:   .asciz  "another start\r\n"
