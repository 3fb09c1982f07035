/* The first instructions. A core arrives in one of two ways:
 *   co-kernel  64-bit mode, paging on with the first extent mapped at its physical addresses, %rdi = boot parameters, %rsi = core number
 *   alone      PVH (xen/include/public/arch-x86/hvm/start_info.h): 32-bit mode, paging off, %ebx = start info
 * and goes on in early tables that map the image and the shared page frames at their final addresses (layout.h). From the first
 * instructions on a fault is reported on the status page, which lies 2 MiB below the image.
 */
#include "layout.h"

#define PHYSICAL(x) ((x) - IMAGE_ADDRESS + IMAGE_LOAD_ADDRESS)
#define EFER 0xc0000080

/* The number of the exception, under it the error code, 0 where the core pushes none. */
.macro push_vector
	.if (vector == 8) || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
	.else
	pushq	$0
	.endif
	pushq	$vector
.endm

.macro push_registers
	pushq	%r15
	pushq	%r14
	pushq	%r13
	pushq	%r12
	pushq	%r11
	pushq	%r10
	pushq	%r9
	pushq	%r8
	pushq	%rbp
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rbx
	pushq	%rax
.endm
.macro pop_registers
	popq	%rax
	popq	%rbx
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	popq	%rbp
	popq	%r8
	popq	%r9
	popq	%r10
	popq	%r11
	popq	%r12
	popq	%r13
	popq	%r14
	popq	%r15
.endm

	.section .note.pvh, "a", @note
	.long 4, 8, 18				/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad PHYSICAL(pvh_entry)

	.section .text.entry, "ax"
	.code32
	.globl pvh_entry
pvh_entry:
	cli
	cld
	movl	$PHYSICAL(pvh_directory), %edi	/* identity, 4 GiB */
	movl	$0x83, %eax
	xorl	%ecx, %ecx
1:	movl	%eax, (%edi,%ecx,8)
	movl	$0, 4(%edi,%ecx,8)
	addl	$0x200000, %eax
	incl	%ecx
	cmpl	$2048, %ecx
	jne	1b
	movl	$PHYSICAL(pvh_pointers), %edi
	movl	$PHYSICAL(pvh_directory) + 3, %eax
	xorl	%ecx, %ecx
2:	movl	%eax, (%edi,%ecx,8)
	addl	$0x1000, %eax
	incl	%ecx
	cmpl	$4, %ecx
	jne	2b
	movl	$PHYSICAL(pvh_pointers) + 3, PHYSICAL(pvh_root)
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$PHYSICAL(pvh_root), %eax
	movl	%eax, %cr3
	movl	$EFER, %ecx
	rdmsr
	orl	$0x900, %eax
	wrmsr
	lgdtl	PHYSICAL(pvh_gdt_pointer)
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax
	orl	$0x80010001, %eax
	movl	%eax, %cr0
	ljmpl	$8, $PHYSICAL(3f)
	.code64
3:	movl	%ebx, %edi
	xorl	%esi, %esi
	movl	$1, alone(%rip)

	.globl kitten_entry
kitten_entry:
	cli
	cld
	leaq	image_start(%rip), %r8		/* where the image really is */
	leaq	boot_stack_top(%rip), %rsp
	leaq	-HOBBES_IMAGE_OFFSET(%r8), %rax
	movq	%rax, early_status(%rip)
	/* Two tables of the same stubs, for the addresses before and after the jump. */
	leaq	early_stubs(%rip), %rax
	leaq	early_idt_low(%rip), %rdx
	call	fill_early_idt
	movabsq	$early_stubs, %rax
	leaq	early_idt_high(%rip), %rdx
	call	fill_early_idt
	subq	$16, %rsp
	movw	$0x1ff, (%rsp)
	leaq	early_idt_low(%rip), %rax
	movq	%rax, 2(%rsp)
	lidt	(%rsp)
	movw	$0x17, (%rsp)
	leaq	early_gdt(%rip), %rax
	movq	%rax, 2(%rsp)
	lgdt	(%rsp)
	addq	$16, %rsp
	pushq	$8
	leaq	1f(%rip), %rax
	pushq	%rax
	lretq
1:	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs

	testl	%esi, %esi
	jnz	3f				/* the early tables are there since core 0 came through */
	movq	early_status(%rip), %rax
	movl	$1, 12(%rax)			/* HOBBES_KITTEN_ENTERED */
	leaq	early_pointers_high(%rip), %rax
	orq	$3, %rax
	movq	%rax, early_root+511*8(%rip)
	leaq	early_directory_high(%rip), %rax
	orq	$3, %rax
	movq	%rax, early_pointers_high+510*8(%rip)
	leaq	0x83(%r8), %rax
	movq	%rax, early_directory_high(%rip)
	subq	$HOBBES_IMAGE_OFFSET, %rax
	movq	%rax, early_directory_high+8(%rip)
	leaq	early_root(%rip), %r9
	cmpl	$0, alone(%rip)
	jne	2f
	movq	%r8, %rcx			/* the image where it is executing now */
	shrq	$39, %rcx
	andl	$511, %ecx
	leaq	early_pointers_low+3(%rip), %rax
	movq	%rax, (%r9,%rcx,8)
	movq	%r8, %rcx
	shrq	$30, %rcx
	andl	$511, %ecx
	leaq	early_pointers_low(%rip), %rdx
	leaq	early_directory_low+3(%rip), %rax
	movq	%rax, (%rdx,%rcx,8)
	movq	%r8, %rcx
	shrq	$21, %rcx
	andl	$511, %ecx
	leaq	early_directory_low(%rip), %rdx
	leaq	0x83(%r8), %rax
	movq	%rax, (%rdx,%rcx,8)
	jmp	3f
2:	leaq	pvh_pointers+3(%rip), %rax
	movq	%rax, (%r9)
3:	leaq	early_root(%rip), %rax
	movq	%rax, %cr3
	movabsq	$high, %rax
	jmp	*%rax

fill_early_idt:					/* %rax: stubs, %rdx: table */
	movl	$32, %ecx
1:	movw	%ax, (%rdx)
	movw	$8, 2(%rdx)
	movw	$0x8e00, 4(%rdx)
	movq	%rax, %r10
	shrq	$16, %r10
	movw	%r10w, 6(%rdx)
	shrq	$16, %r10
	movl	%r10d, 8(%rdx)
	movl	$0, 12(%rdx)
	addq	$16, %rdx
	addq	$16, %rax
	decl	%ecx
	jnz	1b
	ret

	.text
high:
	movq	$SHARED_ADDRESS, early_status
	lidt	early_idt_high_pointer
	lgdt	early_gdt_pointer
	testl	%esi, %esi
	jnz	1f
	movq	$boot_stack_top, %rsp
	xorl	%ebp, %ebp
	call	kernel_main
	ud2
1:	movq	kernel_root, %rax
	movq	%rax, %cr3
	movl	%esi, %edi
	movq	next_core_stack, %rsp
	xorl	%ebp, %ebp
	call	core_main
	ud2

	/* Position-independent; 16 bytes each. The stack holds [error], rip, cs, rflags, rsp, ss. */
	.section .text.entry, "ax"
	.balign 16
early_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	push_vector
	jmp	early_report
	.set vector, vector + 1
	.endr
	.balign 16
early_report:
	movq	early_status(%rip), %rax
	popq	%rcx
	movl	%ecx, STATUS_FAULT(%rax)
	popq	%rcx
	movq	%rcx, STATUS_FAULT+8(%rax)	/* error */
	movq	(%rsp), %rcx
	movq	%rcx, STATUS_FAULT+16(%rax)	/* rip */
	movq	%cr2, %rcx
	movq	%rcx, STATUS_FAULT+40(%rax)
	movl	$5, 12(%rax)			/* HOBBES_KITTEN_FAULTED */
1:	cli
	hlt
	jmp	1b

	/* Interrupts and faults in the kernel proper: exceptions.cpp. */
	.text
	.globl interrupt_stubs
	.balign 16
interrupt_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	push_vector
	.if (vector == 2) || (vector == 8) || (vector == 18)
	jmp	interrupted_anywhere
	.else
	jmp	interrupted
	.endif
	.set vector, vector + 1
	.endr
	.balign 16
interrupted:
	testb	$3, 24(%rsp)			/* from a program: its GS base is loaded */
	jz	1f
	swapgs
1:	push_registers
	cld
	movq	%rsp, %rdi
	movq	%rsp, %rbx
	andq	$-16, %rsp
	call	interrupt
	movq	%rbx, %rsp
restore:
	pop_registers
	addq	$16, %rsp
	testb	$3, 8(%rsp)
	jz	1f
	swapgs
1:	iretq

	/* Exceptions that may come between a program's entry and its swapgs: whose GS base is loaded is told by its sign. */
interrupted_anywhere:
	push_registers
	cld
	xorl	%r12d, %r12d
	movl	$0xc0000101, %ecx
	rdmsr
	testl	%edx, %edx
	js	1f
	swapgs
	incl	%r12d
1:	movq	%rsp, %rdi
	movq	%rsp, %rbx
	andq	$-16, %rsp
	call	interrupt
	movq	%rbx, %rsp
	testl	%r12d, %r12d
	jz	2f
	swapgs
2:	pop_registers
	addq	$16, %rsp
	iretq

	/* A program's system call: %rcx its instruction, %r11 its flags. */
	.globl system_call_entry
	.balign 16
system_call_entry:
	swapgs
	movq	%rsp, %gs:16
	movq	%gs:8, %rsp
	pushq	$0x2b
	pushq	%gs:16
	pushq	%r11
	pushq	$0x33
	pushq	%rcx
	pushq	$0
	pushq	$0x101				/* vector_system_call */
	push_registers
	movq	%rsp, %rdi
	call	system_call
	jmp	restore

	.globl return_to_program
return_to_program:				/* %rdi: its trap frame */
	movq	%rdi, %rsp
	jmp	restore

	.globl restart_core
restart_core:					/* %rdi: the top of the core's stack */
	movq	%rdi, %rsp
	xorl	%ebp, %ebp
	call	run_this_core
	ud2

	.data
	.balign 16
early_gdt:
	.quad	0
	.quad	0x00209b0000000000
	.quad	0x0000930000000000
	.balign 16
	.word	0, 0, 0
early_gdt_pointer:
	.word	0x17
	.quad	early_gdt
pvh_gdt_pointer:
	.word	0x17
	.long	PHYSICAL(early_gdt)
	.balign 16
	.word	0, 0, 0
early_idt_high_pointer:
	.word	0x1ff
	.quad	early_idt_high
	.globl alone
alone:	.long	0
	.balign 8
early_status:
	.quad	0

	.bss
	.balign 4096
early_root:		.skip 4096
early_pointers_high:	.skip 4096
	.globl early_directory_high
early_directory_high:	.skip 4096
early_pointers_low:	.skip 4096
early_directory_low:	.skip 4096
pvh_root:		.skip 4096
pvh_pointers:		.skip 4096
pvh_directory:		.skip 4 * 4096
early_idt_low:		.skip 512
early_idt_high:		.skip 512
	.balign 16
	.skip	16384
boot_stack_top:
	.section .note.GNU-stack, "", @progbits
