# The last 64 KiB of a firmware that shows what a firmware, a boot loader and a Linux guest show, and says that its boot is done.
        .code16
        .globl  _start
_start: mov     $0x402, %dx             # debug console
        mov     $debug, %si
        call    print
        mov     $0x3f8, %dx
        mov     $text, %si
        call    print
        mov     $0x508, %dx             # boot timer
        mov     $123, %al
        out     %al, %dx
1:      cli
        hlt
        jmp     1b
print:  cs lodsb
        test    %al, %al
        jz      1f
        out     %al, %dx
        jmp     print
1:      ret
debug:  .asciz  "TinyBIOS\nBooting from Hard Disk...\nBooting from 0000:7c00\n"
text:   .ascii  "[    0.000000] Linux version 6.1.0-tiny (tests@amiboot)\r\n"
        .ascii  "[    0.700000] Run /init as init process\r\n"
        .asciz  "Welcome to Tiny System 7!\r\n\r\ntiny login: "
        .org    0xfff0
        jmp     _start                  # the reset vector
        .org    0x10000
