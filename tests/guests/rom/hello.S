# Says hello to the serial port and to the debug console, and switches the machine off.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $text, %esi
1:      lodsb
        test    %al, %al
        jz      2f
        mov     $0x402, %dx
        out     %al, %dx
        jmp     1b
2:      ret
text:   .asciz  "hello from the ROM\r\n"
        reset_vector
