# Starts anew through the keyboard controller (pulse of its output port's reset line).
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $0xfe, %al
        out     %al, $0x64
1:      hlt
        jmp     1b
text:   .asciz  "start\r\n"
        reset_vector
