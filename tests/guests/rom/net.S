# Shows what the network card in 00:1f.0 is, and whether it has a ROM to boot by. The slot is that of
# src/vmm/machine/hvm.rs.
        .include "common.inc"
        .set    CARD, 0x8000f800        # 00:1f.0

main:   mov     $CARD, %eax
        call    config
        show    id
        mov     $CARD + 8, %eax
        call    config
        show    class
        mov     $CARD + 0x30, %eax      # expansion ROM BAR
        mov     $0xffffffff, %ebx
        call    set_config
        mov     $CARD + 0x30, %eax
        call    config
        show    rom
        ret

        reset_vector
