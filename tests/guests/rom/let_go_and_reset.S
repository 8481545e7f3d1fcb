# Lets go of the volumes that are wanted, and starts anew before anybody can have seen to that. Ports are those of
# src/vmm/machine/hvm.rs, registers those of src/vmm/pci/hotplug.rs.
        .include "common.inc"
        .set    WANTED, 0xae04
        .set    EJECT, 0xae08

main:   mov     $text, %esi
        call    print
look:   mov     $WANTED, %dx
        in      %dx, %eax
        test    %eax, %eax
        jz      look
        out     %eax, %dx
        mov     $EJECT, %dx
        out     %eax, %dx
        mov     $0xcf9, %dx
        mov     $2, %al
        out     %al, %dx
        mov     $6, %al
        out     %al, %dx
1:      hlt
        jmp     1b
text:   .asciz  "ready\r\n"
        reset_vector
