# Does what no firmware should: each line that it shows is what the machine answered. It ends well only if the machine
# still works at the end. A disk behind NVMe is at 00:03.0.
        .include "common.inc"
        .set    FW_CFG_DMA, 0x514
        .set    BAR, 0x80001810         # BAR0 of 00:03.0
        .set    MARK, 0x12345678

main:   # Memory that cannot be written to.
        mov     rom_word, %eax
        mov     %eax, %ebp
        not     %eax
        mov     %eax, rom_word
        movb    $0, 0xfffffff0
        mov     rom_word, %eax
        xor     %ebp, %eax
        show    rom_changed_by

        # Configuration space: of no function, past the end, with the enable bit off, in odd widths.
        mov     $0x8000f800, %eax       # 00:1f.0
        call    config
        show    no_function
        mov     $0x80ff1800, %eax       # bus 255
        call    config
        show    no_bus
        mov     $0x00000000, %eax
        call    config
        show    not_enabled
        mov     $0x80000000, %eax
        call    config
        show    host_bridge
        mov     $CONFIG_DATA + 3, %dx   # a word that reaches over the end of the register
        in      %dx, %ax
        movzwl  %ax, %eax
        show    over_the_end
        # Every register of every function, all ones.
        mov     $0x80000000, %ecx
1:      mov     %ecx, %eax
        mov     $0xffffffff, %ebx
        call    set_config
        add     $4, %ecx
        cmp     $0x80002800, %ecx
        jb      1b

        # The controller's registers moved over memory: memory answers.
        movl    $MARK, 0x100000
        mov     $BAR, %eax
        mov     $0x00100000, %ebx
        call    set_config
        mov     $BAR + 4, %eax
        xor     %ebx, %ebx
        call    set_config
        mov     $0x80001804, %eax       # memory decoding and bus mastering on
        mov     $6, %ebx
        call    set_config
        mov     0x100000, %eax
        show    memory_under_bar
        movl    $0, 0x100014
        mov     0x100014, %eax
        show    written_under_bar
        # And over the ROM, the interrupt controllers, and out of all windows.
        mov     $BAR, %eax
        mov     $0xffff0000, %ebx
        call    set_config
        mov     rom_word, %eax
        xor     %ebp, %eax
        show    rom_under_bar
        mov     $BAR, %eax
        mov     $0xfee00000, %ebx
        call    set_config

        # fw_cfg: DMA to nowhere, over the end of memory, and wrapping.
        mov     $dma_nowhere, %esi
        call    dma
        show    dma_nowhere
        mov     $dma_wrapping, %esi
        call    dma
        show    dma_wrapping
        mov     $FW_CFG_DMA, %dx        # the descriptor itself nowhere
        mov     $0xffffffff, %eax
        out     %eax, %dx
        add     $4, %dx
        mov     $0xf0ffffff, %eax
        out     %eax, %dx

        # NVMe: where its registers belong.
        mov     $BAR, %eax
        mov     $0xc0000000, %ebx
        call    set_config
        mov     $0xc0000000, %edi
        mov     8(%edi), %eax
        show    nvme_version
        movl    $0x00010001, 0x24(%edi) # admin queues outside memory
        movl    $0xfffff000, 0x28(%edi)
        movl    $0x7fffffff, 0x2c(%edi)
        movl    $0xfffff000, 0x30(%edi)
        movl    $0x7fffffff, 0x34(%edi)
        movl    $0x00460001, 0x14(%edi) # enable
        movl    $1, 0x1000(%edi)        # a command there
1:      mov     0x1c(%edi), %eax        # ready, or a fatal status
        test    $3, %eax
        jz      1b
        mov     $0x400, %ecx            # doorbells of queues that are not
        lea     0x1000(%edi), %ebx
1:      movl    $0xffffffff, (%ebx)
        add     $4, %ebx
        loop    1b
        movl    $0, 0x14(%edi)          # and off again
1:      mov     0x1c(%edi), %eax
        test    $1, %eax
        jnz     1b
        show    nvme_status_after

        # All ports, to read; those that end the machine are not written to.
        xor     %edx, %edx
1:      in      %dx, %al
        inc     %edx
        cmp     $0x10000, %edx
        jb      1b
        mov     $text, %esi
        jmp     print

# Runs the fw_cfg DMA descriptor at %esi (big endian); gives its control word.
dma:    mov     %esi, %edi              # a copy in memory, which the device can write to
        mov     $0x9000, %edi
        mov     $16, %ecx
        rep movsb
        mov     $FW_CFG_DMA, %dx
        xor     %eax, %eax
        out     %eax, %dx
        add     $4, %dx
        mov     $0x00900000, %eax       # 0x9000, big endian
        out     %eax, %dx
1:      mov     0x9000, %eax
        test    $0xfeffffff, %eax       # all but the error bit is cleared once it is done
        jnz     1b
        ret

        .balign 4
rom_word:
        .long   MARK
dma_nowhere:
        .byte   0, 0, 0, 0x0a, 0, 0, 0, 4               # select the signature, read 4 bytes
        .byte   0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0
dma_wrapping:
        .byte   0, 0, 0, 0x0a, 0xff, 0xff, 0xff, 0xff
        .byte   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0
text:   .asciz  "alive\r\n"
        reset_vector
