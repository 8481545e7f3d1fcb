# Prints its command line, where the start info says that it is, and switches itself off.
        .include "common.inc"
main:   mov     24(%ebx), %esi          # cmdline_paddr, low half
        call    print
        mov     $text, %esi
        jmp     print
text:   .asciz  "|end\r\n"
