# Firmware, of 128 KiB: uses the flash chip of its variables, 8 KiB below it, as OVMF does. The first time it leaves a byte
# there and restarts; where that byte is there already it switches off. Addresses are those of src/vmm/machine/hvm.rs.
        .set    COM1, 0x3f8
        .set    PM1_CONTROL, 0x604
        .set    RESET_CONTROL, 0xcf9
        .set    ROM, 0xfffe0000
        .set    FLASH, ROM - 0x2000
        .set    PLACE, FLASH + 0x1234

        .text
        .code32
        .globl  _start
_start:
main:   mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x7000, %esp
        cld
        mov     PLACE, %bl
        cmp     $0x41, %bl
        mov     $kept, %esi
        je      1f
        mov     $fresh, %esi
1:      call    print

        # Is it flash? What it says is 0 once its status was cleared, and the array is as it was.
        movb    $0x50, PLACE
        cmp     %bl, PLACE
        mov     $no_array, %esi
        jne     fail
        movb    $0x70, PLACE
        cmpb    $0, PLACE
        mov     $no_status, %esi
        jne     fail
        movb    $0xff, PLACE

        # A byte, as OVMF writes it; the array is then read for so long that it is memory again.
        movb    $0x10, PLACE
        movb    $0x41, PLACE
        movb    $0xff, PLACE
        mov     $200, %ecx
        mov     $not_written, %esi
2:      cmpb    $0x41, PLACE
        jne     fail
        loop    2b
        mov     $written, %esi
        call    print

        # The other block is erased, this one is not.
        movb    $0x20, FLASH
        movb    $0xd0, FLASH
        movb    $0xff, FLASH
        mov     $not_erased, %esi
        cmpl    $0xffffffff, FLASH + 16
        jne     fail
        cmpb    $0x41, PLACE
        jne     fail

        # The firmware itself cannot be written to.
        mov     ROM, %eax
        movl    $0x12345678, ROM
        cmp     ROM, %eax
        mov     $rom_changed, %esi
        jne     fail
        mov     $rom_kept, %esi
        call    print

        cmp     $0x41, %bl
        je      off
        mov     $6, %al
        mov     $RESET_CONTROL, %dx
        out     %al, %dx
3:      hlt
        jmp     3b

fail:   call    print
off:    mov     $0x2000, %ax            # SLP_EN, type 0
        mov     $PM1_CONTROL, %dx
        out     %ax, %dx
4:      hlt
        jmp     4b

# Writes the string at %esi.
print:  lodsb
        test    %al, %al
        jz      5f
        mov     $COM1, %dx
        out     %al, %dx
        jmp     print
5:      ret

fresh:          .asciz "fresh\r\n"
kept:           .asciz "kept\r\n"
written:        .asciz "written\r\n"
rom_kept:       .asciz "rom kept\r\n"
no_array:       .asciz "fail: no array\r\n"
no_status:      .asciz "fail: no status\r\n"
not_written:    .asciz "fail: not written\r\n"
not_erased:     .asciz "fail: not erased\r\n"
rom_changed:    .asciz "fail: rom changed\r\n"

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 32-bit code
        .quad   0x00cf93000000ffff      # 32-bit data

        # The last 64 KiB are what the processor sees at its reset.
        .org    0x1ff80
        .code16
real:   cli
        lgdtl   %cs:(gdt_pointer - _start - 0x10000)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $main
        .balign 4
gdt_pointer:
        .word   23
        .long   gdt
        .org    0x1fff0
        jmp     real
        .org    0x20000
