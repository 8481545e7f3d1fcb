# Writes for ever.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        jmp     main
text:   .asciz  "all work and no play makes a dull guest\r\n"
