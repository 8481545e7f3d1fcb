# Says that it is ready, and waits for ever with interrupts off.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
1:      hlt
        jmp     1b
text:   .asciz  "ready\r\n"
        reset_vector
