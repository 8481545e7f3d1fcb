# Looks at the slots that are filled, sets the function in 00:04.0 up as far as its interrupts, and gives back what is
# wanted. Ports are those of src/vmm/machine/hvm.rs, registers those of src/vmm/pci/hotplug.rs.
        .include "common.inc"
        .set    GENERAL_EVENTS, 0x60c
        .set    ADDED, 0xae00
        .set    WANTED, 0xae04
        .set    EJECT, 0xae08
        .set    SLOT, 0x80002000        # 00:04.0
        .set    BAR, 0x80000000

main:   mov     $ready, %esi
        call    print

look:   mov     $ADDED, %dx
        in      %dx, %eax
        test    %eax, %eax
        jz      1f
        out     %eax, %dx
        show    added
        mov     $GENERAL_EVENTS, %dx
        in      %dx, %ax
        movzwl  %ax, %eax
        out     %ax, %dx
        show    event
        call    set_up
1:      mov     $WANTED, %dx
        in      %dx, %eax
        mov     %eax, %ebp
        test    %eax, %eax
        jz      look
        out     %eax, %dx
        show    wanted
        mov     %ebp, %eax
        mov     $EJECT, %dx
        out     %eax, %dx
        mov     $SLOT, %eax
        call    config
        show    gone
        jmp     look

# BAR, decoding, and the first vector of MSI-X, where there is a function.
set_up: mov     $SLOT, %eax
        call    config
        mov     %eax, %edi
        cmp     $-1, %eax
        je      3f
        mov     $SLOT + 0x10, %eax
        mov     $BAR, %ebx
        call    set_config
        mov     $SLOT + 4, %eax
        mov     $6, %ebx
        call    set_config
        mov     $SLOT + 0x34, %eax
        call    config
2:      movzbl  %al, %ebp               # the capability
        lea     SLOT(%ebp), %eax
        call    config
        cmp     $0x11, %al
        je      4f
        mov     %ah, %al
        jmp     2b
4:      mov     %eax, %ebx
        or      $0x80000000, %ebx       # MSI-X on
        lea     SLOT(%ebp), %eax
        call    set_config
        lea     SLOT + 4(%ebp), %eax
        call    config
        and     $~7, %eax               # its table
        movl    $0xfee00000, BAR(%eax)
        movl    $0, BAR + 4(%eax)
        movl    $0x41, BAR + 8(%eax)
        movl    $0, BAR + 12(%eax)
3:      mov     %edi, %eax
        show    id
        ret

ready:  .asciz  "ready\r\n"
        reset_vector
