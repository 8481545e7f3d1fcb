# Says that it is ready and then does nothing, for ever, interrupts off.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
1:      cli
        hlt
        jmp     1b
text:   .asciz  "ready\r\n"
