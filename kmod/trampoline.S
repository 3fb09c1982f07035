/* SPDX-License-Identifier: GPL-2.0 */
/* The page below 1 MiB where a core finds itself after SIPI, in real mode with %cs = page >> 4. It either parks there, saying so, or
 * goes to 64-bit mode in the page tables it is told and jumps on. The code never changes; only the parameters do, one core at a time.
 */
#include <linux/linkage.h>

#define EFER 0xc0000080

	.section .rodata
	.balign 16
SYM_DATA_START(hobbes_trampoline)
	.code16
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	cmpl	$1, (mode - hobbes_trampoline)
	jne	1f
	movl	$1, (arrived - hobbes_trampoline)
0:	hlt
	jmp	0b
1:	movl	%cr4, %eax
	orl	$0x20, %eax			/* PAE */
	movl	%eax, %cr4
	movl	(tables - hobbes_trampoline), %eax
	movl	%eax, %cr3
	movl	$EFER, %ecx
	rdmsr
	orl	$0x900, %eax			/* LME, NXE */
	wrmsr
	lgdtl	(gdt_pointer - hobbes_trampoline)
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax		/* INIT leaves the caches off */
	orl	$0x80010001, %eax		/* PG, WP, PE: straight to long mode */
	movl	%eax, %cr0
	ljmpl	*(long_entry - hobbes_trampoline)
	.code64
2:	movw	$0x10, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movq	entry(%rip), %rax
	movq	argument0(%rip), %rdi
	movq	argument1(%rip), %rsi
	xorl	%ebp, %ebp
	movl	$2, arrived(%rip)		/* from here on the parameters may change */
	jmp	*%rax

	.balign 16
	/* struct parameters of core.c */
SYM_INNER_LABEL(hobbes_trampoline_parameters, SYM_L_GLOBAL)
mode:		.long 0
arrived:	.long 0
tables:		.long 0
		.long 0
entry:		.quad 0
argument0:	.quad 0
argument1:	.quad 0
long_entry:	.long 0
		.long 0x08
gdt_pointer:	.word 0x17
gdt_address:	.long 0
		.word 0
	.balign 16
SYM_INNER_LABEL(hobbes_trampoline_gdt, SYM_L_GLOBAL)
	.quad	0
	.quad	0x00209a0000000000		/* 64-bit code */
	.quad	0x0000920000000000		/* data */
	.balign 4
SYM_INNER_LABEL(hobbes_trampoline_long, SYM_L_GLOBAL)
	.long	2b - hobbes_trampoline
SYM_DATA_END_LABEL(hobbes_trampoline, SYM_L_GLOBAL, hobbes_trampoline_end)
