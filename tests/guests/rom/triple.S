# A triple fault.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        lidt    empty
        ud2
empty:  .word   0
        .long   0
1:      hlt
        jmp     1b
text:   .asciz  "start\r\n"
        reset_vector
