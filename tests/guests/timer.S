# Writes values to the boot timer, the last of them that its boot is done, and waits there.
        .include "common.inc"
        .set    BOOT_TIMER, 0x508
main:   mov     $BOOT_TIMER, %dx
        in      %dx, %al
        cmp     $0xb7, %al              # the port is there
        jne     2f
        mov     $1, %al
        out     %al, %dx
        out     %al, %dx
        mov     $text, %esi
        call    print
        mov     $BOOT_TIMER, %dx
        mov     $123, %al
        out     %al, %dx
1:      cli
        hlt
        jmp     1b
2:      ret
text:   .asciz  "about to be done\r\n"
