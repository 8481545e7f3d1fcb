# What a panicking kernel shows, and its standstill.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
1:      cli
        hlt
        jmp     1b
text:   .ascii  "[    0.500000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n"
        .ascii  "[    0.500100] CPU: 0 PID: 1 Comm: init\r\n"
        .asciz  "[    0.500200] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---\r\n"
