# Sends back what it gets, in capitals where it can, until it gets a q.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
next:   mov     $COM1 + 5, %dx          # line status
        in      %dx, %al
        test    $1, %al                 # data ready
        jz      next
        mov     $COM1, %dx
        in      %dx, %al
        cmp     $'q', %al
        je      2f
        cmp     $'a', %al
        jb      1f
        cmp     $'z', %al
        ja      1f
        sub     $0x20, %al
1:      out     %al, %dx
        jmp     next
2:      ret
text:   .asciz  "type\r\n"
