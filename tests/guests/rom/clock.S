# Shows the clock's day, month and year, and hour and minute, as it keeps them (BCD).
        .include "common.inc"
        .macro  cmos register
        mov     $\register, %al
        out     %al, $0x70
        in      $0x71, %al
        shl     $8, %ebp
        movzbl  %al, %eax
        or      %eax, %ebp
        .endm
main:   xor     %ebp, %ebp
        cmos    0x32
        cmos    0x09
        cmos    0x08
        cmos    0x07
        mov     %ebp, %eax
        show    date
        xor     %ebp, %ebp
        cmos    0x04
        cmos    0x02
        mov     %ebp, %eax
        show    time
        ret
        reset_vector
