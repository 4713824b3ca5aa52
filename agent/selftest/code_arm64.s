// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// site begins with an instruction that the kernel steps over out of line: the dearest kind.
TEXT ·site(SB), NOSPLIT|NOFRAME, $0-0
	ADD $1, R9, R9
	RET

// func callSite(number uint64, text *byte, times uint64)
TEXT ·callSite(SB), NOSPLIT, $16-24
	MOVD number+0(FP), R0
	MOVD text+8(FP), R1
	MOVD times+16(FP), R2
again:
	CALL ·site(SB)
	SUBS $1, R2, R2
	BNE  again
	RET

// func siteAddress() uintptr
TEXT ·siteAddress(SB), NOSPLIT, $0-8
	MOVD $·site(SB), R0
	MOVD R0, ret+0(FP)
	RET
