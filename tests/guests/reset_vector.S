# Restarts as Linux does on a machine with hardware-reduced ACPI: a jump to the reset vector in real mode.
        .include "common.inc"
main:   mov     $text, %esi
        call    print
        mov     $code16, %esi           # the way back to real mode, below the first megabyte
        mov     $0x8000, %edi
        mov     $code16_end - code16, %ecx
        rep movsb
        lgdt    gdt_pointer
        ljmp    $8, $0x8000
code16: .code16
        mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     %cr0, %eax
        and     $~1, %al
        mov     %eax, %cr0
        ljmp    $0xf000, $0xfff0
        .code32
code16_end:
text:   .asciz  "another start\r\n"
        .balign 8
gdt:    .quad   0
        .quad   0x00009b000000ffff      # 16-bit code
        .quad   0x000093000000ffff      # 16-bit data
gdt_pointer:
        .word   23
        .long   gdt
