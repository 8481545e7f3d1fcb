# Sends a frame through its network card, the third virtio-mmio device, shows what comes back, and then whether its link
# goes down. Addresses are those of src/vmm/machine/pv.rs, registers those of virtio 1.2, section 4.2.2.
        .include "common.inc"
        .set    SMBIOS, 0xf0000
        .set    CARD, 0xd0002000
        .set    RECEIVE, 0x200000       # a queue: descriptors, and 4 KiB on the available ring, and then the used ring
        .set    TRANSMIT, 0x210000
        .set    ROOM, 0x220000
        .set    FRAME, 0x230000

main:   cmpl    $0x334d535f, SMBIOS     # "_SM3"
        jne     none
        mov     $CARD, %ebx
        mov     (%ebx), %eax
        cmp     $0x74726976, %eax       # "virt"
        jne     none
        mov     8(%ebx), %eax
        cmp     $1, %eax                # a network card
        jne     none
        movl    $1, 0x70(%ebx)          # ACKNOWLEDGE, DRIVER
        movl    $3, 0x70(%ebx)
        movl    $1, 0x24(%ebx)
        movl    $1, 0x20(%ebx)          # VERSION_1
        movl    $0xb, 0x70(%ebx)        # FEATURES_OK
        mov     $0, %eax
        mov     $RECEIVE, %edi
        call    queue
        mov     $1, %eax
        mov     $TRANSMIT, %edi
        call    queue
        movl    $0xf, 0x70(%ebx)        # DRIVER_OK

        movl    $ROOM, RECEIVE
        movl    $1530, RECEIVE + 8
        movw    $2, RECEIVE + 12        # the device writes it
        movw    $1, RECEIVE + 0x1002
        movl    $0, 0x50(%ebx)

        mov     $frame, %esi
        mov     $FRAME + 12, %edi       # behind a header of zeroes
        mov     $60, %ecx
        rep movsb
        movl    $FRAME, TRANSMIT
        movl    $72, TRANSMIT + 8
        movw    $1, TRANSMIT + 0x1002
        movl    $1, 0x50(%ebx)

1:      mov     RECEIVE + 0x2002, %ax
        test    %ax, %ax
        jz      1b
        mov     $ROOM + 12, %esi
        call    print
2:      mov     0x106(%ebx), %ax        # the card's status
        test    $1, %ax                 # link up
        jnz     2b
        mov     $down, %esi
        call    print
        ret
none:   mov     $no, %esi
        call    print
        ret

# Sets up queue %eax of 8 entries at %edi.
queue:  mov     %eax, 0x30(%ebx)
        movl    $8, 0x38(%ebx)
        mov     %edi, 0x80(%ebx)
        movl    $0, 0x84(%ebx)
        lea     0x1000(%edi), %eax
        mov     %eax, 0x90(%ebx)
        movl    $0, 0x94(%ebx)
        lea     0x2000(%edi), %eax
        mov     %eax, 0xa0(%ebx)
        movl    $0, 0xa4(%ebx)
        movl    $1, 0x44(%ebx)
        ret

frame:  .asciz  "a frame there and back again\r\n"
        .skip   60
down:   .asciz  "down\r\n"
no:     .asciz  "no card\r\n"
