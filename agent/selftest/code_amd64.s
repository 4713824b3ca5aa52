// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// site begins with an instruction that the kernel steps over out of line: the dearest kind.
TEXT ·site(SB), NOSPLIT|NOFRAME, $0-0
	ADDQ $1, AX
	RET

TEXT ·nop5(SB), NOSPLIT|NOFRAME, $0-0
	BYTE $0x0f; BYTE $0x1f; BYTE $0x44; BYTE $0x00; BYTE $0x00
	RET

TEXT ·nop10(SB), NOSPLIT|NOFRAME, $0-0
	BYTE $0x66; BYTE $0x2e; BYTE $0x0f; BYTE $0x1f; BYTE $0x84
	BYTE $0x00; BYTE $0x00; BYTE $0x00; BYTE $0x00; BYTE $0x00
	RET

// func callSite(number uint64, text *byte, times uint64)
TEXT ·callSite(SB), NOSPLIT, $8-24
	MOVQ number+0(FP), DI
	MOVQ text+8(FP), SI
	MOVQ times+16(FP), CX
again:
	CALL ·site(SB)
	DECQ CX
	JNE  again
	RET

// func callNOP(address uintptr, times uint64) (corrupt uint64)
//
// The 128 bytes below the stack pointer of what is called, which the System V ABI leaves to it, are filled before each call
// and compared behind it.
TEXT ·callNOP(SB), NOSPLIT, $8-24
	MOVQ address+0(FP), R9
	MOVQ times+8(FP), CX
	XORQ DX, DX
	MOVQ $0x2165_6c6f_6879_654b, BX
again:
	LEAQ -136(SP), DI
	MOVQ $16, R8
fill:
	MOVQ BX, (DI)
	ADDQ $8, DI
	DECQ R8
	JNE  fill
	CALL R9
	LEAQ -136(SP), DI
	MOVQ $16, R8
compare:
	CMPQ BX, (DI)
	JNE  bad
	ADDQ $8, DI
	DECQ R8
	JNE  compare
	JMP  next
bad:
	INCQ DX
next:
	DECQ CX
	JNE  again
	MOVQ DX, corrupt+16(FP)
	RET

// func siteAddress() uintptr
TEXT ·siteAddress(SB), NOSPLIT, $0-8
	LEAQ ·site(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func nopAddresses() (five, ten uintptr)
TEXT ·nopAddresses(SB), NOSPLIT, $0-16
	LEAQ ·nop5(SB), AX
	MOVQ AX, five+0(FP)
	LEAQ ·nop10(SB), AX
	MOVQ AX, ten+8(FP)
	RET
