# A kernel that was told panic=-1: it panics and resets at once.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $RESET, %dx
        mov     $1, %al
        out     %al, %dx
1:      hlt
        jmp     1b
text:   .ascii  "[    0.500000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"
        .asciz  "[    0.500100] Rebooting in 1 seconds..\r\n"
