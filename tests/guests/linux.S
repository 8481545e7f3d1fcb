# Shows what a Linux guest shows on its way to the login prompt, and waits there.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
1:      cli
        hlt
        jmp     1b
text:   .ascii  "[    0.000000] Linux version 6.1.0-tiny (tests@amiboot)\r\n"
        .ascii  "[    0.700000] Run /init as init process\r\n"
        .asciz  "\r\ntiny login: "
