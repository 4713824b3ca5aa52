# SPDX-License-Identifier: Apache-2.0
# Functions whose first instructions are good or bad places for a breakpoint. Nothing calls them.

.macro function name
	.globl \name
	.type \name, @function
	.p2align 4
\name:
.endm
.macro end name
	.size \name, . - \name
.endm

	.text

function plain
	push %rbp
	mov %rsp, %rbp
	pop %rbp
	ret
end plain

function endbranch
	endbr64
	ret
end endbranch

function nop5
	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00
	push %rbx
	pop %rbx
	ret
end nop5

function nop10_twice
	.byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00
	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00
	xor %eax, %eax
	ret
end nop10_twice

function nop_only
	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00
end nop_only

function breakpoint
	int3
	ret
end breakpoint

function locked
	lock incl (%rdi)
	ret
end locked

function halts
	hlt
	ret
end halts

function vector_first
	vxorps %ymm0, %ymm0, %ymm0
	ret
end vector_first

function unknown_first
	.byte 0x0f, 0x04, 0xff, 0xff
	ret
end unknown_first

function loop_head
	movb $1, (%rdi)
	inc %rdi
	cmp %rsi, %rdi
	jne loop_head
	ret
end loop_head

# The branch leads into the instruction.
function overlapped
	mov $0x90909090, %eax
	dec %edi
	jne overlapped + 1
	ret
end overlapped

function calls_itself
	test %edi, %edi
	je 1f
	dec %edi
	call calls_itself
1:	ret
end calls_itself

# A table without a frame around it, that leads past the first instruction.
function table_elsewhere
	mov %edi, %edi
	jmp *elsewhere(,%rdi,8)
1:	mov $1, %eax
	ret
2:	mov $2, %eax
	ret
end table_elsewhere

# The same, that leads to the first instruction too.
function table_to_entry
	mov (%rsi), %edi
	add $4, %rsi
	jmp *to_entry(,%rdi,8)
3:	ret
end table_to_entry

# With offsets instead of addresses.
function offsets_to_entry
	mov (%rsi), %edi
	lea offsets(%rip), %rdx
	movslq (%rdx,%rdi,4), %rax
	add %rdx, %rax
	jmp *%rax
4:	ret
end offsets_to_entry

# A table that leads to the first instruction would do so from another stack frame: the debug information tells.
function framed_table
	.cfi_startproc
	sub $24, %rsp
	.cfi_def_cfa_offset 32
	jmp *framed(,%rdi,8)
5:	add $24, %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
end framed_table

# A call in the place of a return.
function tail_call
	mov (%rdi), %rax
	jmp *16(%rax)
end tail_call

# Behind what cannot be decoded, any byte may be the begin of a branch.
function unknown_harmless
	push %rbx
	.byte 0x0f, 0x04, 0x01, 0x02
	pop %rbx
	ret
end unknown_harmless

function unknown_loop
	push %rbx
	.byte 0x0f, 0x04
	jmp unknown_loop
end unknown_loop

function unknown_far_loop
	push %rbx
	.byte 0x0f, 0x04
	.skip 300, 0x90
	jne unknown_far_loop
	ret
end unknown_far_loop

function vector_then_loop
	incl (%rdi)
	vpxor %xmm1, %xmm1, %xmm1
	loop vector_then_loop
	ret
end vector_then_loop

function unknown_then_jump
	inc %eax
	.byte 0x0f, 0x04
	jmp *%rax
end unknown_then_jump

	.section .rodata
	.p2align 3
elsewhere:	.quad 1b, 2b
to_entry:	.quad 3b, table_to_entry, 3b
framed:		.quad 5b, 5b, framed_table
offsets:	.long 4b - offsets, offsets_to_entry - offsets, 4b - offsets

	.text
function _start
	mov $60, %eax
	xor %edi, %edi
	syscall
end _start

	.section .note.GNU-stack,"",@progbits
