# Says hello and switches itself off.
        .include "common.inc"
main:   mov     $text, %esi
        jmp     print
text:   .asciz  "hello from the guest\r\n"
