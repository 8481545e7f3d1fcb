# Starts anew through port 0x92 (fast reset).
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $1, %al
        out     %al, $0x92
1:      hlt
        jmp     1b
text:   .asciz  "start\r\n"
        reset_vector
