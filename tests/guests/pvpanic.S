# A panic told by the notifier alone, without a word on the console.
        .include "common.inc"
main:   mov     $0x505, %dx
        mov     $1, %al
        out     %al, %dx
1:      cli
        hlt
        jmp     1b
