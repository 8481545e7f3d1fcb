# A triple fault: an exception without a table to handle it.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        lidt    empty
        ud2
text:   .asciz  "last words\r\n"
empty:  .word   0
        .long   0
