# Starts anew through the reset control register.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $0xcf9, %dx
        mov     $2, %al
        out     %al, %dx
        mov     $6, %al
        out     %al, %dx
1:      hlt
        jmp     1b
text:   .asciz  "start\r\n"
        reset_vector
